package runtime

import (
	"os"
	"testing"
)

// What is handed to the shim of a running container takes the place of what it
// kept before.
func TestKeepWhileItRuns(t *testing.T) {
	b := open(t)
	early, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	b.networks.files.Keep = append(b.networks.files.Keep, held)
	c := b.start(t, "sleep 1000")
	for range 2 {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err = b.Keep(c.ID, []*os.File{writer, writer}); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		kept, err := b.Kept(c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(kept) != 2 || !sameFile(t, kept[0], reader) || !sameFile(t, kept[1], reader) {
			t.Errorf("%d descriptors are kept, or others than were handed over", len(kept))
		}
		for _, file := range kept {
			file.Close()
		}
		reader.Close()
	}
	// The first pipe has no writer any more: its reader sees the end.
	if n, err := early.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("what was kept before is still held: %d bytes, %v", n, err)
	}
}
