package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

// What stands in for parts of the default stream, as in tests: its upstream's URL, and
// the file of the public keys that sign it.
const (
	upstreamEnv = "OXBOW_UPSTREAM"
	keyringEnv  = "OXBOW_KEYRING"
)

// defaultStream returns what a server serves whom nobody told what to: the default
// stream, where there is no configuration and no stream in the store, or no store. One
// of which nothing could be published yet is no stream: what stood in the way may have
// been the stand-ins of an earlier start. Otherwise, and where upstream must not be
// asked, it is nil.
func defaultStream(p place, log *slog.Logger) (*mirror.Stream, error) {
	told, err := somebodyTold(p)
	if err != nil || told {
		for _, name := range []string{upstreamEnv, keyringEnv} {
			if told && os.Getenv(name) != "" {
				log.Warn(name + " has no effect: it is for a server that has no configuration, is not offline, and has published nothing of a stream yet")
			}
		}
		return nil, err
	}
	s := mirror.DefaultStream()
	if upstream := os.Getenv(upstreamEnv); upstream != "" {
		other, err := mirror.NewStream(upstream)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", upstreamEnv, err)
		}
		s.Upstream, s.Index = other.Upstream, other.Index
	}
	if file := os.Getenv(keyringEnv); file != "" {
		if s.Keyring, err = readInput(file, maxKeyring); err != nil {
			return nil, fmt.Errorf("%s: %w", keyringEnv, err)
		}
		if _, err := streams.ReadKeyring(s.Keyring); err != nil {
			return nil, fmt.Errorf("%s: cannot use %s: %w", keyringEnv, file, err)
		}
	}
	if err := s.CheckKeyring(); err != nil {
		return nil, &hinted{err, keyringEnv + " names the file of another; a configuration file says what else to serve"}
	}
	return &s, nil
}

// somebodyTold reports whether somebody said what to serve, or that nothing is to be
// asked for.
func somebodyTold(p place) (bool, error) {
	if p.site.File != "" || p.offline {
		return true, nil
	}
	files, err := cache.OpenFiles(p.dir)
	if errors.Is(err, cache.ErrNoStore) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer files.Close()
	names, err := files.Streams()
	if err != nil || len(names) != 1 {
		return len(names) > 0, err
	}
	s, err := mirror.ReadStream(files, names[0])
	if err != nil {
		return true, nil // who reads the streams to serve them says why
	}
	_, err = files.Current(s.Name)
	untold := mirror.DefaultStream()
	return s.Name != untold.Name || s.Advertise != untold.Advertise || s.Path != untold.Path || !errors.Is(err, cache.ErrNoSnapshot), nil
}

// usualSchedule returns when a stream that is in no configuration is synced by itself:
// by command only, but for one like the default stream, which advertises all of
// upstream's as it is now.
func usualSchedule(s mirror.Stream) mirror.Schedule {
	if s.Advertise == mirror.AdvertiseAll {
		return mirror.Schedule{Every: time.Hour, Jitter: 5 * time.Minute}
	}
	return mirror.Schedule{}
}
