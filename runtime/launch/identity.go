package launch

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// identity is who a process is.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

// lookUp resolves user[:group] and further groups by the files of the root of
// the calling thread, so that a link in /etc leads nowhere but into the
// container. Names that look like numbers and are in no file are numbers.
func lookUp(user string, more []string) (identity, error) {
	id := identity{home: "/"}
	name, group, withGroup := strings.Cut(user, ":")
	passwd, err := database("/etc/passwd")
	if err != nil {
		return id, err
	}
	groups, err := database("/etc/group")
	if err != nil {
		return id, err
	}
	if err = id.findUser(name, passwd); err != nil {
		return id, err
	}
	if withGroup && group != "" {
		if id.gid, err = findGroup(group, groups); err != nil {
			return id, err
		}
	} else {
		id.supplement(name, passwd, groups)
	}
	for _, g := range more {
		gid, err := findGroup(g, groups)
		if err != nil {
			return id, err
		}
		id.groups = append(id.groups, gid)
	}
	// The own group is a supplementary one too, as after a login. Without it, a
	// process could step out of a group whose files say "everybody but" by
	// running a program that has another group's set-gid bit.
	if !slices.Contains(id.groups, id.gid) {
		id.groups = slices.Insert(id.groups, 0, id.gid)
	}
	return id, nil
}

func (id *identity) findUser(name string, passwd []string) error {
	if name == "" {
		name = "0"
	}
	number, err := strconv.ParseInt(name, 10, 32)
	numeric := err == nil && number >= 0
	for _, line := range passwd {
		f := strings.Split(line, ":")
		if len(f) < 6 || f[0] != name && (!numeric || f[2] != name) {
			continue
		}
		uid, uerr := strconv.ParseInt(f[2], 10, 32)
		gid, gerr := strconv.ParseInt(f[3], 10, 32)
		if uerr != nil || gerr != nil || uid < 0 || gid < 0 {
			continue
		}
		id.uid, id.gid = int(uid), int(gid)
		if f[5] != "" {
			id.home = f[5]
		}
		return nil
	}
	if !numeric {
		return notFound("user", name, "passwd")
	}
	id.uid = int(number)
	return nil
}

// notFound tells names that are in no file from numbers that no process can have.
func notFound(kind, name, file string) error {
	text := "unable to find " + kind + " " + name + ": no matching entries in " + file + " file"
	if _, err := strconv.ParseInt(name, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		text = "unable to find " + kind + " " + name + ": uids and gids must be in range 0-2147483647"
	}
	return &startError{code: 126, text: text}
}

// supplement adds the groups in which the user is named as a member.
func (id *identity) supplement(name string, passwd, groups []string) {
	for _, line := range passwd {
		f := strings.Split(line, ":")
		if len(f) > 3 && f[2] == itoa(id.uid) {
			name = f[0]
			break
		}
	}
	if name == "" {
		return
	}
	for _, line := range groups {
		f := strings.Split(line, ":")
		if len(f) < 4 {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, err := strconv.ParseInt(f[2], 10, 32); member == name && err == nil && int(gid) != id.gid {
				id.groups = append(id.groups, int(gid))
			}
		}
	}
}

func findGroup(name string, groups []string) (int, error) {
	for _, line := range groups {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[0] != name {
			continue
		}
		if gid, err := strconv.ParseInt(f[2], 10, 32); err == nil && gid >= 0 {
			return int(gid), nil
		}
	}
	if gid, err := strconv.ParseInt(name, 10, 32); err == nil && gid >= 0 {
		return int(gid), nil
	}
	return 0, notFound("group", name, "group")
}

// database reads the lines of a file that the container's owner controls: it
// may be missing, a pipe, or endless.
func database(name string) ([]string, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, doing("reading the container's "+name, err)
	}
	defer file.Close()
	if info, serr := file.Stat(); serr != nil || !info.Mode().IsRegular() {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(file, 4<<20))
	if err != nil {
		return nil, doing("reading the container's "+name, err)
	}
	return strings.Split(string(text), "\n"), nil
}

// findProgram is execvp's look-up over the PATH of the new process, within the
// root of the calling thread. Its words are Docker's, from which clients tell
// the exit codes 126 and 127.
func findProgram(name string, env []string) (string, error) {
	if name == "" {
		return "", &startError{code: 127, text: `exec: "": executable file not found in $PATH`}
	}
	if strings.Contains(name, "/") {
		return name, usable(name)
	}
	for dir := range strings.SplitSeq(variable(env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		full := dir + "/" + name
		if usable(full) == nil {
			return full, nil
		}
	}
	return "", &startError{code: 127, text: `exec: "` + name + `": executable file not found in $PATH`}
}

func usable(name string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return execError(`exec: "`+name+`": stat `+name, err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return &startError{code: 126, text: `exec: "` + name + `": is a directory`}
	case st.Mode&0o111 == 0:
		return &startError{code: 126, text: `exec: "` + name + `": permission denied`}
	}
	return nil
}

func execError(what string, err error) error {
	code := 126
	if errors.Is(err, unix.ENOENT) {
		code = 127
	}
	return &startError{code: code, text: what + ": " + err.Error()}
}

func variable(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(env[i], "="); k == name {
			return v
		}
	}
	return ""
}
