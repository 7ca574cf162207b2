package main

import (
	"os"
	"runtime/debug"

	"platelayer/containers/image"
	"platelayer/lifecycle"
)

// registry gives access to registries as the machine's files and those of the
// invoking user say.
func (a *app) registry(plainHTTP bool, notice func(string)) (*image.Registry, error) {
	registries, err := image.ReadRegistries(image.RegistriesFile)
	if err != nil {
		return nil, err
	}
	agent := "platelayer"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		agent += "/" + info.Main.Version
	}
	return image.NewRegistry(image.RegistryOptions{
		Registries:  registries,
		Credentials: image.Credentials{User: image.UserOf(lifecycle.Invoker()), Getenv: os.Getenv},
		PlainHTTP:   plainHTTP,
		Notice:      notice,
		Agent:       agent,
	}), nil
}

// localEngines are the Docker and Podman of the machine and the invoking user.
func (a *app) localEngines() image.Local {
	uid, gid := lifecycle.Invoker()
	return image.LocalEngines(uid, gid, image.UserOf(uid, gid).Home, os.Getenv)
}

// transferred is what pull and push print of an image with --json.
type transferred struct {
	Name     string `json:"name"`
	Digest   string `json:"digest"`
	Index    string `json:"index,omitempty"`
	Platform string `json:"platform"`
	Layers   int    `json:"layers"`
	Size     int64  `json:"size"` // of its blobs, in bytes
}

func newTransferred(name string, i *image.Image) transferred {
	t := transferred{Name: name, Digest: i.Digest.String(), Platform: i.Config.OS + "/" + i.Config.Architecture, Layers: len(i.Layers), Size: i.Size()}
	if i.Config.Variant != "" {
		t.Platform += "/" + i.Config.Variant
	}
	if i.Index.Hex != "" {
		t.Index = i.Index.String()
	}
	return t
}
