package topology

import "fmt"

// mostGuesses bounds the search: a guess is not worth comparing everything
// with everything.
const mostGuesses = 200

// nearest returns the candidate that word is most likely a slip of, or "".
func nearest(word string, candidates []string) string {
	if len(candidates) > mostGuesses || len(word) < 2 {
		return ""
	}
	best, at := "", min(2, (len(word)+1)/3)+1
	for _, c := range candidates {
		if len(word) > 64 || len(c)-len(word) > 2 || len(word)-len(c) > 2 {
			continue
		}
		if d := distance(word, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// nearestHint asks whether the nearest candidate is meant; without one the hint
// is otherwise.
func nearestHint(word string, candidates []string, otherwise string) string {
	if guess := nearest(word, candidates); guess != "" {
		return fmt.Sprintf("did you mean %s?", guess)
	}
	return otherwise
}
