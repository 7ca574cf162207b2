CREATE ROLE web LOGIN PASSWORD :'password';
CREATE DATABASE :"database";
\connect :"database"

CREATE TABLE product (
    id    integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name  text NOT NULL UNIQUE,
    stock integer NOT NULL CHECK (stock >= 0)
);
INSERT INTO product (name, stock) VALUES ('ballast', 12000), ('rail', 480), ('sleeper', 800);
GRANT SELECT ON product TO web;
