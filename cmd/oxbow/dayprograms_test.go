package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What this binary is when it is called by another name.
const (
	machineName = "machine" // on which TestFirstDay runs
	regionName  = "maas"
)

// playProgram does not return if this process is to play something.
func playProgram(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case machineName:
		os.Exit(m.Run())
	case regionName:
		if err := playMAAS(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "maas:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// playMAAS is a region controller that imports all that a boot source has, and trusts
// the keyring that it was given.
func playMAAS(args []string) error {
	given := map[string]string{}
	words := []string{}
	for _, arg := range args {
		if key, value, ok := strings.Cut(arg, "="); ok {
			given[key] = value
		} else {
			words = append(words, arg)
		}
	}
	url, keyring := given["url"], given["keyring_data@"]
	filename, named := given["keyring_filename"]
	if !slices.Equal(words, []string{"admin", "boot-sources", "create"}) || len(given) != 3 || keyring == "" || !named || filename != "" || !strings.HasSuffix(url, "/") {
		return fmt.Errorf("%q creates no boot source", args)
	}
	keyring, err := filepath.Abs(keyring)
	if err != nil {
		return err
	}
	transport := &http.Transport{}
	transport.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
	a, err := auditTree(context.Background(), &http.Client{Transport: transport}, url, "file://"+keyring)
	if err != nil {
		return err
	}
	fmt.Println(a)
	return nil
}
