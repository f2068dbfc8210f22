package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// unfinishedText says in a line what a bundle lacks that is not published yet, until when the rest is kept, and what to do.
func unfinishedText(u *mirror.UnfinishedBundle) string {
	what := "bundle " + u.Bundle[:12]
	if len(u.Snapshots) > 0 {
		what += " of " + strings.Join(slices.Sorted(maps.Keys(u.Snapshots)), ", ")
	}
	lacks, remedy := "is not published: all of it is here", "import any volume of it again, which publishes it or says why not"
	switch {
	case u.Volumes == 0:
		lacks = "is not whole: an older oxbow did not note which volumes are missing"
	case len(u.Missing) > 0:
		files := 0
		for _, m := range u.Missing {
			files += m.Files
		}
		verb := "is"
		if len(u.Missing) > 1 {
			verb = "are"
		}
		lacks, remedy = fmt.Sprintf("is not whole: %s of %d %s missing, with %s, %s", volumeNumbers(u.Missing), u.Volumes, verb, counted(files, "file"), iec(u.MissingBytes())), "import the rest"
	}
	return fmt.Sprintf("%s, begun %s, %s; what came is kept until %s: %s, or give it up with `oxbow bundle import --abandon %.12s`",
		what, stamp(u.Since), lacks, stamp(u.KeptUntil), remedy, u.Bundle)
}

// maxNumbers bounds the volumes that a line names.
const maxNumbers = 10

// volumeNumbers names volumes.
func volumeNumbers(all []mirror.MissingVolume) string {
	if len(all) == 1 {
		return fmt.Sprintf("volume %d", all[0].Volume)
	}
	var numbers []string
	for _, m := range all[:min(len(all), maxNumbers)] {
		numbers = append(numbers, fmt.Sprint(m.Volume))
	}
	text := "volumes " + strings.Join(numbers, " ")
	if more := len(all) - maxNumbers; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// unfinishedEvery is how old what is told of unfinished bundles may be where it is asked for at each scrape: every file of theirs is
// looked for.
const unfinishedEvery = 10 * time.Second

// An unfinished tells of unfinished bundles.
type unfinished struct {
	mu   sync.Mutex // guards the rest; held while files are looked for
	at   time.Time
	last []*mirror.UnfinishedBundle
	err  error
}

func (u *unfinished) bundles(f *cache.Files) ([]*mirror.UnfinishedBundle, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); now.Sub(u.at) >= unfinishedEvery {
		u.last, u.err = mirror.UnfinishedBundles(f)
		u.at = now
	}
	return u.last, u.err
}

// forget has them be looked for anew: a command has ended.
func (u *unfinished) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.at = time.Time{}
}

// notes tells readiness of them.
func (u *unfinished) notes(f *cache.Files) (notes []string) {
	all, err := u.bundles(f)
	for _, b := range all {
		notes = append(notes, unfinishedText(b))
	}
	if err != nil {
		notes = append(notes, err.Error())
	}
	return notes
}
