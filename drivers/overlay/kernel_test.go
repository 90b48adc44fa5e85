package overlay

import (
	"errors"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
)

// This kernel has both kinds; one that lacks a kind is told by its name.
func TestKernelWithoutTunnels(t *testing.T) {
	for lacking, want := range map[string]string{"": "", "vxlan": "modprobe vxlan", "bridge": "modprobe bridge"} {
		err := checkKernel(func(kind string) (bool, error) { return kind == lacking, nil })
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, linkspan.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", lacking, err)
		}
	}
	broken := errors.New("broken")
	if err := checkKernel(func(string) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("when the kernel cannot be asked: %v", err)
	}
}
