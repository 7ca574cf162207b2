package topology

func dependencyKeys() []key {
	return []key{
		{name: "condition", shape: oneOf(Started, Healthy, CompletedSuccessfully), example: "condition: service_completed_successfully",
			def: "`service_started`",
			doc: "What to wait for: that the command runs, that the `healthcheck` succeeds, or that the command has ended without an error."},
		{name: "restart", shape: shape{form: formBoolean}, example: "restart: true", def: "false",
			doc: "Whether to restart this station too when a command or an edit restarts the other. A repair by the other's policy does not."},
		{name: "required", shape: shape{form: formBoolean}, example: "required: false", def: "true",
			doc: "With `false` this station starts also when the other fails, is not selected, or is not in the file."},
	}
}

func healthKeys() []key {
	time := text("a time like 10s or 1m30s")
	return []key{
		{name: "test", shape: either("a text for a shell, or a list that starts with CMD, CMD-SHELL or NONE", text(""), list("", text("a word"))),
			example: `test: [CMD, pg_isready, -U, postgres]`, def: "a problem, except with `disable`",
			doc: "The command: exit code 0 is well. `[CMD, PROGRAM, ...]` runs a program, a text or `[CMD-SHELL, TEXT]` runs `/bin/sh -c TEXT`, " +
				"`[NONE]` is no healthcheck."},
		{name: "interval", shape: time, example: "interval: 5s", def: "`30s`",
			doc: "How long to wait between two checks, at least `1ms`. Until the first success they come closer together, so that `up` need not wait for this."},
		{name: "timeout", shape: time, example: "timeout: 2s", def: "`30s`",
			doc: "How long a check may take before it counts as failed, at least `1ms`."},
		{name: "retries", shape: shape{form: formInteger}, example: "retries: 5", def: "3",
			doc: "How many failures in a row make the station unhealthy."},
		{name: "start_period", shape: time, example: "start_period: 1m", def: "`0s`",
			doc: "How long after the start a failure does not count, unless a check has succeeded before."},
		{name: "start_interval", shape: time, example: "start_interval: 500ms", def: "`5s`",
			doc: "The `interval` during `start_period`, at least `1ms`."},
		{name: "disable", shape: shape{form: formBoolean}, example: "disable: true", def: "false",
			doc: "No healthcheck, whatever the other keys say; for taking back what a merge key brings."},
		{name: "on_unhealthy", shape: oneOf("report", "restart"), example: "on_unhealthy: restart", def: "`report`",
			doc: "What to do when the station becomes unhealthy: only tell, or restart it, whatever its `restart` says."},
	}
}

func loggingKeys() []key {
	return []key{
		{name: "driver", shape: text("json-file or local"), example: "driver: local", def: "`local`",
			doc: "Taken for compose's sake: `json-file` and `local` mean the same, logs that Platelayer keeps."},
		{name: "options", shape: object("a mapping of max-size and max-file", logOptionsLevel), example: "options: {max-size: 50m}", def: "all defaults",
			doc: "The bounds of the log."},
	}
}

func logOptionKeys() []key {
	return []key{
		{name: "max-size", shape: text("a size like 10m"), example: "max-size: 50m", def: "`10m`",
			doc: "The most that one file of the log may hold, at least `4k`; then the next is begun."},
		{name: "max-file", shape: shape{form: formInteger}, example: `max-file: "3"`, def: "2",
			doc: "How many files are kept, the one that is written to among them, from 1 to 100."},
	}
}

func deployKeys() []key {
	return []key{
		{name: "replicas", shape: shape{form: formInteger}, example: "replicas: 3", def: "the station itself, without a number",
			doc: "As the station's own `replicas`."},
		{name: "resources", shape: object("a mapping of limits and reservations", resourcesLevel), example: "resources: {limits: {cpus: 0.5}}",
			def: "see `cpus` and `mem_limit`", doc: "Compose's other place for limits."},
	}
}
