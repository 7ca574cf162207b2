package graph

import "strings"

// font is how a text is set.
type font struct {
	size float64
	mono bool
	bold bool
}

var (
	titleFont   = font{size: 20, bold: true}
	headFont    = font{size: 15, bold: true}
	nameFont    = font{size: 13, bold: true}
	plainFont   = font{size: 12}
	addressFont = font{size: 12, mono: true}
)

// width is at least that of the text in a wide font (DejaVu Sans): what draws
// the picture has fonts of its own.
func (f font) width(text string) float64 {
	if f.mono {
		return 0.61 * f.size * float64(len([]rune(text)))
	}
	em := 0.0
	for _, r := range text {
		switch {
		case strings.ContainsRune("mwMW@%", r):
			em += 1
		case strings.ContainsRune("iljt.,:;'|! ()f", r):
			em += 0.41
		case r > 0x7f:
			em += 1
		default:
			em += 0.66
		}
	}
	if f.bold {
		em *= 1.1
	}
	return em * f.size
}

// wrap breaks a text into lines of at most most runes: at a space where there is
// one, or behind a dash or the like.
func wrap(text string, most int) []string {
	var lines []string
	rest := []rune(text)
	for len(rest) > most {
		at := breakAt(rest, 0, most, " ")
		if at < 0 {
			at = breakAt(rest, most/2, most, "-_./")
		}
		if at < 0 {
			at = most
		}
		lines, rest = append(lines, strings.TrimRight(string(rest[:at]), " ")), rest[at:]
	}
	return append(lines, string(rest))
}

// breakAt is behind the last of marks between least and most, or -1.
func breakAt(text []rune, least, most int, marks string) int {
	for i := most; i > least; i-- {
		if strings.ContainsRune(marks, text[i-1]) {
			return i
		}
	}
	return -1
}
