package main

import (
	"net/url"
	"strings"
)

// commandLine is what others are told of a process that has the store: its command
// line, which must not show them the password of a URL.
func commandLine(args []string) string {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = withoutUser(arg)
	}
	return strings.Join(shown, " ")
}

// withoutUser returns a word with the user and password of the URL in it, if any,
// left out. Of a malformed URL everything before the last @ goes.
func withoutUser(word string) string {
	scheme, rest, ok := strings.Cut(word, "://")
	if !ok {
		return word
	}
	authority := rest
	if _, err := url.Parse(word); err == nil {
		authority, _, _ = strings.Cut(strings.NewReplacer("?", "/", "#", "/").Replace(rest), "/")
	}
	return scheme + "://" + rest[strings.LastIndex(authority, "@")+1:]
}
