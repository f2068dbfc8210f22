// Package typo finds the word that a mistyped one was meant to be.
package typo

// maxTypos is how many letters of a word may be wrong for it to be suggested.
const maxTypos = 2

// Nearest returns the word of known that is nearest to word, the first of
// several, or "" if none is near enough to be meant.
func Nearest(word string, known []string) string {
	nearest, least := "", maxTypos+1
	for _, k := range known {
		if longer := len(word) - len(k); longer > maxTypos || longer < -maxTypos {
			continue
		}
		if d := distance(word, k); d < least && d < len(k)/2 {
			nearest, least = k, d
		}
	}
	return nearest
}

// distance is the number of letters to add, to remove, to replace or to swap
// with their neighbour that make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			switch {
			case i == 0 || j == 0:
				rows[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				rows[i][j] = rows[i-1][j-1]
			default:
				rows[i][j] = 1 + min(rows[i-1][j-1], rows[i-1][j], rows[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
