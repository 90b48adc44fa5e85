package lesson

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSignedResults signs what a learner did, and finds every change of it.
func TestSignedResults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := NewKeys(file); err != nil {
		t.Fatal(err)
	}
	if err := NewKeys(file); err == nil {
		t.Error("a key was overwritten")
	}
	private, err := PrivateKey(file)
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicKey(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	_, c := course(t)
	c.Key = private
	if _, err := c.Start(t.Context(), "namespace", "ada"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(t.Context(), "namespace"); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Check(t.Context(), "namespace", ""); err == nil {
		t.Error("nothing was done, and passed")
	}
	all, err := c.Report()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	handedIn, err := ReadResults(text)
	if err != nil || len(handedIn) != 1 || handedIn[0].Tasks[0].Attempts != 1 {
		t.Fatalf("read back %+v, %v", handedIn, err)
	}
	if err := handedIn[0].Verify(public); err != nil {
		t.Errorf("an honest result: %v", err)
	}
	for what, change := range map[string]func(*Progress){
		"attempts":  func(p *Progress) { p.Tasks[0].Attempts = 0 },
		"time":      func(p *Progress) { p.Tasks[0].Passed = time.Now() },
		"name":      func(p *Progress) { p.Seed = "bob" },
		"signature": func(p *Progress) { p.Signature[7] ^= 1 },
		"none":      func(p *Progress) { p.Signature = nil },
	} {
		again, err := ReadResults(text)
		if err != nil {
			t.Fatal(err)
		}
		change(&again[0])
		if err := again[0].Verify(public); err == nil {
			t.Errorf("a change of the %s was not found", what)
		}
	}

	// The file behind it is no better place to change things.
	progress := c.file("namespace")
	stored, err := os.ReadFile(progress)
	if err != nil {
		t.Fatal(err)
	}
	good := string(stored)
	if err := os.WriteFile(progress, []byte(strings.Replace(good, `"Attempts":1`, `"Attempts":0`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Text("namespace"); err == nil || !strings.Contains(err.Error(), "was changed since it was signed") {
		t.Errorf("a changed file is taken for good: %v", err)
	}
	if err := os.WriteFile(progress, stored, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKeysThatAreNone names the file that holds no key.
func TestKeysThatAreNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if key, err := PrivateKey(file); key != nil || err != nil {
		t.Errorf("no file: %v, %v", key, err)
	}
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PrivateKey(file); err == nil || !strings.Contains(err.Error(), file+" holds no key") {
		t.Errorf("err = %v", err)
	}
	if _, err := PublicKey(file); err == nil {
		t.Error("a greeting is a key")
	}
	if _, err := ReadResults([]byte(`{"Lesson":"cable"}`)); err == nil {
		t.Error("half a result was read")
	}
}

// TestStartAtATask loads the state of a stage for whoever has fallen behind.
func TestStartAtATask(t *testing.T) {
	_, c := course(t)
	if _, err := c.StartAt(t.Context(), "cable", "eve", 9); err == nil || !strings.Contains(err.Error(), "there are 1 to 4") {
		t.Errorf("err = %v", err)
	}
	if _, err := c.Current(); err == nil {
		t.Error("a lesson is under way that was not started")
	}
	p, err := c.StartAt(t.Context(), "cable", "eve", 3)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := c.Current(); name != "cable" || err != nil {
		t.Errorf("under way is %q, %v", name, err)
	}
	solution, err := c.Solution(t.Context(), "cable")
	if err != nil {
		t.Fatal(err)
	}
	byHand(t, c, p, solution)
	for range 2 {
		if err := c.Check(t.Context(), "cable", ""); err != nil {
			t.Error(err)
		}
		if err := c.Next(t.Context(), "cable", true); err != nil {
			t.Fatal(err)
		}
		if solution, err = c.Solution(t.Context(), "cable"); err != nil {
			t.Fatal(err)
		}
		byHand(t, c, p, solution)
	}
	if text, err := c.Text("cable"); err != nil || !strings.Contains(text, "All 4 tasks are done") || !strings.Contains(text, "linkspan lab start switch") {
		t.Errorf("text %q, %v", text, err)
	}
	if err := c.Stop(t.Context(), "cable"); err != nil {
		t.Error(err)
	}
}
