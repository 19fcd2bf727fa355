// Package images pulls images through containerd and knows which are there.
//
// In flow: references and credentials, and the names of images that changed in
// containerd. Out flow: images with the configuration a container needs, and
// containerd's image records, labelled like those of its own CRI service so that
// both see the same images. It must not know containers.
package images

import (
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image, under whatever names. It is never changed once it is published.
type Image struct {
	// ID is the digest of its configuration.
	ID string
	// Names are its records in containerd: tags, digests and the ID itself.
	Names []string
	// Config is what containers start from.
	Config ocispec.ImageConfig
	// ChainID names the snapshot of its topmost layer.
	ChainID string
	// Size is that of its compressed content in bytes.
	Size uint64
	// Pinned images are never collected.
	Pinned bool
}

// Tags are its names with a tag.
func (i *Image) Tags() []string {
	return i.filter(func(ref reference.Reference) bool { _, ok := ref.(reference.Tagged); return ok })
}

// Digests are its names with a digest.
func (i *Image) Digests() []string {
	return i.filter(func(ref reference.Reference) bool { _, ok := ref.(reference.Canonical); return ok })
}

func (i *Image) filter(keep func(reference.Reference) bool) []string {
	var names []string
	for _, name := range i.Names {
		if ref, err := reference.ParseAnyReference(name); err == nil && name != i.ID && keep(ref) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Normalize completes a reference as users write it: nginx is docker.io/library/nginx:latest.
func Normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// isID says whether ref is an image's ID, with or without its algorithm.
func asID(ref string) (string, bool) {
	if d, err := digest.Parse(ref); err == nil {
		return d.String(), true
	}
	if d, err := digest.Parse("sha256:" + ref); err == nil {
		return d.String(), true
	}
	return "", false
}
