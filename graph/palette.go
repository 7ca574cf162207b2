package graph

// palette holds the colours of a picture: "#rrggbb".
type palette struct {
	ground, box, card, edge string
	text, muted             string
	spine                   string
	hues                    []string // of clusters' switches
	tones                   [4]string
	links                   []string
}

func paletteOf(dark bool) palette {
	if dark {
		return palette{
			ground: "#15181d", box: "#1c2027", card: "#262b34", edge: "#3b424e",
			text: "#eceff4", muted: "#a9b2c0", spine: "#8b95a5",
			hues:  []string{"#6cb6ff", "#57c2a0", "#d9a35b", "#c08cf0", "#ef7f8f", "#5cc3d8", "#a9c25a", "#e58fc4", "#9fb0c8", "#f0895a", "#7fd67f", "#9a93ff"},
			tones: [4]string{Idle: "#a9b2c0", Good: "#5ccf7e", Busy: "#e5b84d", Bad: "#ff7b72"},
			links: []string{"#f0a35e", "#7ee0c6", "#e6a8ff", "#ffd166", "#9db8ff", "#ff9a9a"},
		}
	}
	return palette{
		ground: "#ffffff", box: "#f6f8fa", card: "#ffffff", edge: "#c9d1da",
		text: "#1b1f24", muted: "#57606a", spine: "#57606a",
		hues:  []string{"#0b62c4", "#0f7b5f", "#9a5b00", "#7b3fc4", "#b9304a", "#0a7285", "#5c7010", "#a8327f", "#44546a", "#a03c00", "#2f6f2f", "#5a4fcf"},
		tones: [4]string{Idle: "#57606a", Good: "#1a7f37", Busy: "#8a5a00", Bad: "#c62828"},
		links: []string{"#b35900", "#0b7d69", "#8f3fbf", "#8a6d00", "#3557c9", "#b83232"},
	}
}

func (c palette) hue(i int) string  { return c.hues[i%len(c.hues)] }
func (c palette) link(i int) string { return c.links[i%len(c.links)] }
