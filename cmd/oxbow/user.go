package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// becomeUserOf makes root the user to whom the directory of a store belongs, for
// good: what root writes there that user must be able to read, replace and
// remove. Files that only root can read have to be opened before.
func becomeUserOf(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is made by this user, and is this user's then
	}
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Uid == 0 {
		return nil
	}
	uid, gid := int(st.Uid), int(st.Gid)
	groups := []int{}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		gid, _ = strconv.Atoi(u.Gid)
		groups = groupsOf(u)
	}
	err = errors.Join(syscall.Setgroups(groups), syscall.Setgid(gid), syscall.Setuid(uid))
	if err != nil {
		return fmt.Errorf("cannot become user %d, to whom the store %s belongs: %w", uid, dir, err)
	}
	return nil
}

// groupsOf returns the groups of a user, as far as they can be told.
func groupsOf(u *user.User) []int {
	groups := []int{}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			groups = append(groups, n)
		}
	}
	return groups
}
