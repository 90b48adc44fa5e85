package image

import (
	goruntime "runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// dockerList is Docker's older name for an index.
const dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"

// ParsePlatform reads os, os/arch, or os/arch/variant; "" is the zero value,
// which means this machine.
func ParsePlatform(text string) (ocispec.Platform, error) {
	if text == "" {
		return ocispec.Platform{}, nil
	}
	parts := strings.Split(strings.ToLower(text), "/")
	for _, part := range parts {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			parts = nil
			break
		}
	}
	switch len(parts) {
	case 1:
		if parts[0] != "linux" && parts[0] != "windows" {
			return ocispec.Platform{OS: "linux", Architecture: architecture(parts[0])}, nil
		}
		return ocispec.Platform{OS: parts[0], Architecture: goruntime.GOARCH}, nil
	case 2:
		return ocispec.Platform{OS: parts[0], Architecture: architecture(parts[1])}, nil
	case 3:
		return ocispec.Platform{OS: parts[0], Architecture: architecture(parts[1]), Variant: parts[2]}, nil
	}
	return ocispec.Platform{}, linkspan.Errorf(linkspan.ErrInvalid, "%q is an invalid OS component or platform: want os/arch or os/arch/variant", text)
}

// architecture puts uname's names into Go's.
func architecture(name string) string {
	switch name {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armhf", "armel":
		return "arm"
	case "i386":
		return "386"
	}
	return name
}

// here fills in this machine's platform for what is not said.
func here(p ocispec.Platform) ocispec.Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = goruntime.GOARCH
	}
	return p
}

// fits tells whether an image for one platform is what is wanted; the zero
// platform wants this machine's.
func fits(has, want ocispec.Platform) bool {
	want = here(want)
	return has.OS == want.OS && has.Architecture == want.Architecture && (want.Variant == "" || has.Variant == "" || has.Variant == want.Variant)
}

// CheckPlatform refuses an image for another platform than the one that is
// wanted of it. ref is the image as the user calls it.
func (i Image) CheckPlatform(ref string, want ocispec.Platform) error {
	has := i.Spec.Platform
	if fits(has, want) {
		return nil
	}
	return linkspan.Errorf(linkspan.ErrNotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)", ref, platformText(has), platformText(want))
}

func platformText(p ocispec.Platform) string {
	p = here(p)
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}
