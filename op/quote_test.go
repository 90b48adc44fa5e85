package op

import (
	"os/exec"
	"strings"
	"testing"
)

// What quote returns, sh reads as the word itself.
func FuzzQuote(f *testing.F) {
	for _, word := range []string{"", "eth0", "a b", "it's", "$(reboot)", "`x`", "-n", "~", "*", "a\nb", "é", `\`, "''", "#x", "!x", "a=b", "{a,b}", "\xff"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.ContainsRune(word, 0) {
			return // no argument of a command can hold it
		}
		out, err := exec.Command("sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("sh reads %s as %q (%v), want %q", quote(word), out, err, word)
		}
	})
}

func TestQuoteLeavesPlainWordsAlone(t *testing.T) {
	for _, word := range []string{"eth0", "br-0123", "10.77.0.1/24", "02:42:0a:4d:00:32", "net/ipv4/ip_forward=1"} {
		if got := quote(word); got != word {
			t.Errorf("quote(%s) = %s", word, got)
		}
	}
}
