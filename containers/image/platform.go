package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Platform is what an image is made for. Only Linux runs here.
type Platform struct {
	Architecture string // as Go calls it: amd64, arm64
	Variant      string // v6, v7; "" is what all of the architecture run
	Exact        bool   // no image of an older architecture that would run too
}

// String is the platform as registries write it: linux/arm/v7.
func (p Platform) String() string {
	text := "linux/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// MachinePlatform is this machine's.
func MachinePlatform() Platform {
	p := Platform{Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = "v7"
		var u unix.Utsname
		if err := unix.Uname(&u); err == nil {
			p.Variant = armVariant(unix.ByteSliceToString(u.Machine[:]))
		}
	}
	return p
}

// armVariant is the variant of what the kernel says the machine is.
func armVariant(machine string) string {
	switch {
	case machine == "aarch64", strings.HasPrefix(machine, "armv8"):
		return "v8"
	case strings.HasPrefix(machine, "armv6"):
		return "v6"
	case strings.HasPrefix(machine, "armv5"):
		return "v5"
	}
	return "v7"
}

// ParsePlatform reads what a user asks for: linux/arm64, arm64, linux/arm/v7.
func ParsePlatform(text string) (Platform, error) {
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) > 1 && parts[0] != "linux" {
		return Platform{}, fmt.Errorf("%q is not a platform that runs here: write linux/ARCHITECTURE", shorten(text))
	}
	if len(parts) > 1 {
		parts = parts[1:]
	}
	if len(parts) > 2 || slices.Contains(parts, "") {
		return Platform{}, fmt.Errorf("%q is not a platform: write linux/ARCHITECTURE or linux/ARCHITECTURE/VARIANT", shorten(text))
	}
	p := Platform{Architecture: parts[0], Exact: true}
	if len(parts) == 2 {
		p.Variant = parts[1]
	}
	p = p.normal()
	if !slices.Contains(architectures(), p.Architecture) {
		return Platform{}, fmt.Errorf("%q is not an architecture of Linux: write %s", shorten(parts[0]), strings.Join(architectures(), ", "))
	}
	return p, nil
}

// architectures are Go's names for those of Linux, which registries use.
func architectures() []string {
	return []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x"}
}

// normal writes the other names of an architecture as Go and registries do
// (containerd's platforms, normalizeArch).
func (p Platform) normal() Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386":
		p.Architecture, p.Variant = "386", ""
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch p.Architecture + "/" + p.Variant {
	case "amd64/v1", "arm64/8", "arm64/v8":
		p.Variant = ""
	case "arm/":
		p.Variant = "v7"
	case "arm/5", "arm/6", "arm/7", "arm/8":
		p.Variant = "v" + p.Variant
	}
	return p
}

// runs lists what a machine of the platform runs, the best first (containerd's
// platforms, platformVector).
func (p Platform) runs() []Platform {
	all := []Platform{{Architecture: p.Architecture, Variant: p.Variant}}
	older := func(architecture string, least int) {
		var n int
		if _, err := fmt.Sscanf(p.Variant, "v%d", &n); err != nil || n > 9 {
			return
		}
		for n--; n >= least; n-- {
			all = append(all, Platform{Architecture: architecture, Variant: fmt.Sprintf("v%d", n)}.normal())
		}
	}
	switch p.Architecture {
	case "arm":
		older("arm", 5)
	case "amd64":
		older("amd64", 1)
		if !p.Exact {
			all = append(all, Platform{Architecture: "386"})
		}
	case "arm64":
		older("arm64", 8)
		if !p.Exact {
			all = append(all, Platform{Architecture: "arm", Variant: "v8"}, Platform{Architecture: "arm", Variant: "v7"},
				Platform{Architecture: "arm", Variant: "v6"}, Platform{Architecture: "arm", Variant: "v5"})
		}
	}
	return all
}

// NoPlatformError is an image that isn't made for the platform wanted.
type NoPlatformError struct {
	Name   string
	Wanted Platform
	Have   []string
}

func (e *NoPlatformError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("%s holds no image for %s", e.Name, e.Wanted)
	}
	return fmt.Sprintf("%s holds no image for %s; it has %s", e.Name, e.Wanted, strings.Join(e.Have, ", "))
}

// choosePlatform finds the image of an index that fits a platform best, the first of
// equals; nil where none does. One that says no platform is taken where no
// other image says one.
func choosePlatform(index *v1.IndexManifest, p Platform) *v1.Descriptor {
	var images []*v1.Descriptor
	for n := range index.Manifests {
		if d := &index.Manifests[n]; !aboutAnother(d) && (d.MediaType.IsImage() || d.MediaType.IsIndex()) {
			images = append(images, d)
		}
	}
	said := func(d *v1.Descriptor) bool { return d.Platform != nil }
	if len(images) > 0 && !slices.ContainsFunc(images, said) {
		return images[0]
	}
	for _, want := range p.runs() {
		for _, d := range images {
			if said(d) && d.Platform.OS == "linux" && platformOf(d.Platform) == want {
				return d
			}
		}
	}
	return nil
}

func platformOf(p *v1.Platform) Platform {
	return Platform{Architecture: p.Architecture, Variant: p.Variant}.normal()
}

// aboutAnother: an attestation lies beside the image that it is about.
func aboutAnother(d *v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

// foreign tells whether a platform that is said, as far as it is, isn't one that
// a machine runs.
func foreign(said *v1.Platform, p Platform) bool {
	return said != nil && (said.OS != "" && said.OS != "linux" || said.Architecture != "" && !slices.Contains(p.runs(), platformOf(said)))
}

// platformsOf lists what an index has, for messages.
func platformsOf(index *v1.IndexManifest) []string {
	const most = 20
	var all []string
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" || len(all) == most {
			continue
		}
		if text := shorten(theirs(d.Platform.String())); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}
