package topology

// Starter returns a first topology file with comments, as init writes it.
func Starter() string {
	return `# A topology: clusters (networks) with stations (containers), linked by a
# backbone. "platelayer up" starts it, and after an edit changes what differs;
# "platelayer down" removes it. Every key is described in docs/topology.md.

name: first

clusters:
  web:
    subnet: 203.0.113.0/24        # any range; leave it out for a private one
    stations:
      www1:
        address: 203.0.113.10     # leave it out for a stable automatic one
        aliases: [www]            # answers to www1, www, and www1.web.first.internal
      www2:
        depends_on:
          backend/db: {condition: service_healthy}   # starts when db is well
        restart: on-failure       # started again, after a pause, when it fails

  backend:
    # gateway: db                 # a station may be the way out instead of the backbone
    stations:
      db:
        # Without rootfs a station runs a small HTTP server that tells who answered.
        # rootfs: host            # the machine's own programs, copy-on-write
        # command: [python3, -m, http.server, "80"]
        healthcheck:              # "platelayer up" waits until it succeeds
          test: [CMD, /bin/fetch, http://localhost/]   # a program of the built-in image
          interval: 10s
        # volumes: [./site:/srv/site:ro]
        environment:
          GREETING: hello
        # seal: [/etc/hostname]   # refuse to start when a sealed file has changed
`
}
