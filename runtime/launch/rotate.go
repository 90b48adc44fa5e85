package launch

import (
	"compress/gzip"
	"io"
	"os"
)

// rotate begins a new file. Names are Docker's: LOG is written, LOG.1 is what
// was before, LOG.2 what was before that. A step that fails is left out: what
// matters is that the container can go on writing.
func (l *log) rotate() {
	if l.packing != nil {
		<-l.packing // two at once would take the memory of two
		l.packing = nil
	}
	path := l.settings.Path
	if l.settings.Files <= 1 {
		if l.file.Truncate(0) == nil {
			l.size = 0
		}
		return
	}
	for n := l.settings.Files - 1; n > 1; n-- {
		from, to := path+"."+itoa(n-1), path+"."+itoa(n)
		os.Remove(to)
		os.Remove(to + ".gz")
		os.Rename(from, to)
		os.Rename(from+".gz", to+".gz")
	}
	last := path + ".1"
	os.Remove(last + ".gz")
	if os.Rename(path, last) != nil {
		return
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return // on into the old one, which is there under its new name
	}
	l.file.Close()
	l.file, l.size = file, 0
	if !l.settings.Compress {
		return
	}
	packing := make(chan struct{})
	l.packing = packing
	go func() {
		defer close(packing)
		pack(last)
	}()
}

// pack replaces a file by its compression. At any moment a reader finds at
// least one of the two whole.
func pack(name string) {
	from, err := os.Open(name)
	if err != nil {
		return
	}
	defer from.Close()
	to, err := os.OpenFile(name+".gz.new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return
	}
	defer os.Remove(name + ".gz.new")
	defer to.Close()
	w, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return
	}
	if _, err = io.Copy(w, from); err != nil || w.Close() != nil || os.Rename(name+".gz.new", name+".gz") != nil {
		return
	}
	os.Remove(name)
}
