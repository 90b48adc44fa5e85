package runtime

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// logOptions are those that a log driver knows, by Docker's documentation.
var logOptions = map[string][]string{
	"json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
	"local":     {"max-size", "max-file", "compress"},
	"none":      nil,
}

// CheckLogging refuses a log driver that there is not, and options that the
// driver does not understand: output that goes nowhere is found out too late.
func CheckLogging(h *container.HostConfig) error {
	_, err := logOf(h.LogConfig)
	return err
}

// logOf translates the log driver's options; Path is left to the caller, and
// Files is 0 for a driver that keeps nothing.
func logOf(c container.LogConfig) (launch.Log, error) {
	l := launch.Log{Files: 1}
	kind := c.Type
	if kind == "" {
		kind = "json-file"
	}
	known, there := logOptions[kind]
	switch kind {
	case "journald", "syslog", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs":
		return l, linkspan.Errorf(linkspan.ErrNotImplemented, "log driver %q is not supported by this release: use json-file or local", kind)
	case "none":
		return launch.Log{}, nil
	case "local":
		l = launch.Log{MaxSize: 20_000_000, Files: 5, Compress: true}
	}
	if !there {
		return l, linkspan.Errorf(linkspan.ErrInvalid, "logger: no log driver named '%s' is registered", kind)
	}
	for key, value := range c.Config {
		var err error
		switch key {
		case "max-size":
			if value == "-1" {
				l.MaxSize = 0
				continue
			}
			if l.MaxSize, err = units.FromHumanSize(value); err == nil && l.MaxSize <= 0 {
				err = errors.New("it must be above zero")
			}
		case "max-file":
			if l.Files, err = strconv.Atoi(value); err == nil && l.Files < 1 {
				err = errors.New("max-file cannot be less than 1")
			}
		case "compress":
			l.Compress, err = strconv.ParseBool(value)
		default:
			if !slices.Contains(known, key) {
				return l, linkspan.Errorf(linkspan.ErrInvalid, "unknown log opt '%s' for %s log driver", key, kind)
			}
		}
		if err != nil {
			return l, linkspan.Errorf(linkspan.ErrInvalid, "invalid log opt %s=%s for %s log driver: %w", key, value, kind, err)
		}
	}
	if kind == "json-file" && l.Compress && (l.Files < 2 || l.MaxSize == 0) {
		return l, linkspan.Errorf(linkspan.ErrInvalid, "compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	return l, nil
}

// logFile is where the log is written; the rotated ones are beside it.
func (r *Runtime) logFile(c Container) string {
	name := string(c.ID) + "-json.log"
	if c.HostConfig != nil && c.HostConfig.LogConfig.Type == "local" {
		name = "local.log"
	}
	return filepath.Join(r.dataDir(c.ID), name)
}

// mostLooks bounds how often a log is looked through because its files were
// renamed meanwhile.
const mostLooks = 50

// openLogs opens the files of a log, oldest first. The last is the one that is
// written; it is made if it is missing. The shim renames them when the log is full,
// the oldest first, and tells nobody: a look in between finds a gap, and would
// take what is behind it for lost.
func openLogs(path string) ([]*os.File, error) {
	for looks := 1; ; looks++ {
		before := logInodes(path)
		files, err := openNamed(path)
		if err != nil {
			return nil, fmt.Errorf("reading the log: %w", err)
		}
		if slices.Equal(before, logInodes(path)) && !slices.Contains(before, 0) || looks == mostLooks {
			return files, nil
		}
		closeAll(files)
		time.Sleep(time.Millisecond)
	}
}

// openNamed opens the files of a log that have a name now.
func openNamed(path string) ([]*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return nil, err
	}
	files := []*os.File{file}
	for n := 1; ; n++ {
		older, err := openRotated(rotatedLog(path, n))
		if errors.Is(err, fs.ErrNotExist) {
			return files, nil
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append([]*os.File{older}, files...)
	}
}

// logInodes tells which file has each name of a log, newest first; 0 is a gap.
func logInodes(path string) []uint64 {
	inodes := []uint64{inodeOf(path)}
	for n := 1; ; n++ {
		inode := cmp.Or(inodeOf(rotatedLog(path, n)), inodeOf(rotatedLog(path, n)+".gz"))
		if inode == 0 && inodes[len(inodes)-1] == 0 {
			return inodes[:len(inodes)-1]
		}
		inodes = append(inodes, inode)
	}
}

func inodeOf(name string) uint64 {
	var stat unix.Stat_t
	if unix.Stat(name, &stat) != nil {
		return 0
	}
	return stat.Ino
}

func rotatedLog(path string, n int) string { return path + "." + strconv.Itoa(n) }

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

func identical(a, b *os.File) bool {
	one, err := a.Stat()
	if err != nil {
		return false
	}
	two, err := b.Stat()
	return err == nil && os.SameFile(one, two)
}

// openRotated opens a file that is no longer written. One that is compressed
// is expanded into a file without a name.
func openRotated(name string) (*os.File, error) {
	file, err := os.Open(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	packed, err := os.Open(name + ".gz")
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	reader, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	plain, err := os.CreateTemp(filepath.Dir(name), "reading-*")
	if err != nil {
		return nil, err
	}
	os.Remove(plain.Name())
	if _, err = io.Copy(plain, reader); err == nil {
		_, err = plain.Seek(0, io.SeekStart)
	}
	if err != nil {
		plain.Close()
		return nil, err
	}
	return plain, nil
}
