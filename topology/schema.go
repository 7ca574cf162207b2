package topology

import (
	"encoding/json"
	"maps"
	"slices"
)

// Schema returns the JSON Schema (draft 2020-12) of a topology file, for
// editors. It knows the form of the file; Load also knows what the values
// mean.
func Schema() ([]byte, error) {
	table := keyTable()
	defs := map[string]any{
		// A value with a variable may become anything.
		"variable": map[string]any{"type": "string", "pattern": `\$`},
	}
	for _, at := range slices.Sorted(maps.Keys(table)) {
		if at != topologyLevel {
			defs[string(at)] = levelSchema(at, table[at])
		}
	}
	schema := levelSchema(topologyLevel, table[topologyLevel])
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Platelayer topology"
	schema["$defs"] = defs
	out, err := json.MarshalIndent(schema, "", "  ")
	return append(out, '\n'), err
}

func levelSchema(at level, keys []key) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, k := range keys {
		s := k.shape.schema()
		s["description"] = k.doc
		properties[k.name] = s
		if k.required {
			required = append(required, k.name)
		}
	}
	schema := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	if at.takesExtensions() {
		schema["patternProperties"] = map[string]any{"^x-": true}
	}
	return schema
}

func (s *shape) schema() map[string]any {
	out := s.form.schema(s)
	if s.null {
		out = map[string]any{"anyOf": []any{out, map[string]any{"type": "null"}}}
	}
	return out
}

func (f form) schema(s *shape) map[string]any {
	variable := map[string]any{"$ref": "#/$defs/variable"}
	switch f {
	case formInteger:
		return map[string]any{"anyOf": []any{
			map[string]any{"type": "integer"},
			map[string]any{"type": "string", "pattern": "^[+-]?[0-9]+$"}, variable,
		}}
	case formBoolean:
		return map[string]any{"anyOf": []any{map[string]any{"type": "boolean"}, variable}}
	case formAny:
		return map[string]any{"type": []string{"string", "number", "boolean", "null"}}
	case formList:
		return map[string]any{"type": "array", "items": s.elem.schema()}
	case formTable:
		return map[string]any{"type": "object", "additionalProperties": s.elem.schema()}
	case formObject:
		return map[string]any{"$ref": "#/$defs/" + string(s.level)}
	case formEither:
		var options []any
		for i := range s.options {
			options = append(options, s.options[i].schema())
		}
		return map[string]any{"anyOf": options}
	}
	switch {
	case s.words != nil:
		return map[string]any{"anyOf": []any{map[string]any{"enum": s.words}, variable}}
	case s.pattern != "":
		return map[string]any{"anyOf": []any{map[string]any{"type": []string{"string", "number"}, "pattern": s.pattern}, variable}}
	}
	return map[string]any{"type": []string{"string", "number"}}
}
