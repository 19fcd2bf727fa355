package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	containerdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNotFound says that an image is not here.
var ErrNotFound = errors.New("image not found")

const (
	// managedLabel is what containerd's CRI service puts on its images.
	managedLabel = "io.cri-containerd.image"
	managedValue = "managed"
	pinnedLabel  = "io.cri-containerd.pinned"
	pinnedValue  = "pinned"
)

// Options configures a Store.
type Options struct {
	Client *containerd.Client
	// Namespace of containerd in which the images are.
	Namespace   string
	Snapshotter string
	// ConfigDir is the folder of hosts.toml files.
	ConfigDir string
	Logger    *slog.Logger
}

// Store is the images of one containerd namespace, indexed in memory so that
// starting a container asks containerd for nothing about its image.
type Store struct {
	options Options
	pulls   pulls
	leases  held

	mu     sync.RWMutex      // guards what follows
	byName map[string]string // record name to ID
	byID   map[string]*Image
}

// held are the leases of the pulls under way.
type held struct {
	sync.Mutex // guards held, and is taken while leases are made or looked through
	held       map[string]bool
}

// New makes an empty index; Load fills it.
func New(o Options) *Store {
	return &Store{options: o, pulls: newPulls(), leases: held{held: map[string]bool{}}, byName: map[string]string{}, byID: map[string]*Image{}}
}

// Load reads all images anew, and ends what dead pulls held.
func (s *Store) Load(ctx context.Context) error {
	if err := s.endDeadLeases(ctx); err != nil {
		return err
	}
	records, err := s.options.Client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	present := map[string]bool{}
	for _, r := range records {
		present[r.Name] = true
		if err := s.index(ctx, r); err != nil {
			s.options.Logger.Debug("image cannot be used here", "image", r.Name, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.byName {
		if !present[name] {
			s.forget(name)
		}
	}
	return nil
}

// Refresh reads one record anew, after an event or before its image is used.
func (s *Store) Refresh(ctx context.Context, name string) error {
	r, err := s.options.Client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget(name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	return s.index(ctx, r)
}

// index reads manifest and configuration of a record and publishes the image.
func (s *Store) index(ctx context.Context, r containerdimages.Image) error {
	provider := s.options.Client.ContentStore()
	manifest, err := containerdimages.Manifest(ctx, provider, r.Target, platforms.Default())
	if err != nil {
		return fmt.Errorf("manifest of image %q: %w", r.Name, err)
	}
	id := manifest.Config.Digest.String()
	s.mu.RLock()
	known := s.byID[id]
	s.mu.RUnlock()
	var image Image
	if known != nil {
		image = *known
	} else {
		blob, err := content.ReadBlob(ctx, provider, manifest.Config)
		if err != nil {
			return fmt.Errorf("configuration of image %q: %w", r.Name, err)
		}
		config, err := parseConfig(blob)
		if err != nil {
			return fmt.Errorf("configuration of image %q: %w", r.Name, err)
		}
		image = Image{ID: id, Config: config.Config, ChainID: chainID(config.RootFS), Size: uint64(r.Target.Size + manifest.Config.Size)}
		for _, layer := range manifest.Layers {
			image.Size += uint64(layer.Size)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.byName[r.Name]; ok && old != id {
		s.forget(r.Name)
	}
	if known := s.byID[id]; known != nil {
		image.Names = known.Names
	}
	image.Pinned = image.Pinned || r.Labels[pinnedLabel] == pinnedValue
	if !slices.Contains(image.Names, r.Name) {
		image.Names = append(slices.Clone(image.Names), r.Name)
	}
	s.byName[r.Name], s.byID[id] = id, &image
	return nil
}

func chainID(rootfs ocispec.RootFS) string {
	return identity.ChainID(slices.Clone(rootfs.DiffIDs)).String()
}

// forget must be called with mu held.
func (s *Store) forget(name string) {
	id, ok := s.byName[name]
	if !ok {
		return
	}
	delete(s.byName, name)
	image := *s.byID[id]
	image.Names = slices.DeleteFunc(slices.Clone(image.Names), func(n string) bool { return n == name })
	if len(image.Names) == 0 {
		delete(s.byID, id)
		return
	}
	s.byID[id] = &image
}

// Get finds an image by ID, or by a name as users write it.
func (s *Store) Get(ctx context.Context, ref string) (*Image, error) {
	if image := s.lookup(ref); image != nil {
		return image, nil
	}
	// Not in the index: it may have been imported a moment ago, before its event came.
	names := []string{ref}
	if name, err := Normalize(ref); err == nil && name != ref {
		names = append(names, name)
	}
	for _, name := range names {
		if err := s.Refresh(ctx, name); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
			return nil, err
		}
	}
	if image := s.lookup(ref); image != nil {
		return image, nil
	}
	return nil, fmt.Errorf("image %q: %w", ref, ErrNotFound)
}

func (s *Store) lookup(ref string) *Image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if id, ok := asID(ref); ok {
		if image := s.byID[id]; image != nil {
			return image
		}
	}
	if id, ok := s.byName[ref]; ok {
		return s.byID[id]
	}
	if name, err := Normalize(ref); err == nil {
		if id, ok := s.byName[name]; ok {
			return s.byID[id]
		}
	}
	return nil
}

// List returns all images, ordered by ID.
func (s *Store) List() []*Image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*Image
	for _, image := range s.byID {
		list = append(list, image)
	}
	slices.SortFunc(list, func(a, b *Image) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list
}

// Remove deletes every record of an image. An image that is not here is no error.
func (s *Store) Remove(ctx context.Context, ref string) error {
	image, err := s.Get(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, name := range image.Names {
		var opts []containerdimages.DeleteOpt
		if i == len(image.Names)-1 {
			// The last one waits for the collector, so that the space is free when we return.
			opts = append(opts, containerdimages.SynchronousDelete())
		}
		if err := s.options.Client.ImageService().Delete(ctx, name, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %q: %w", name, err)
		}
		s.mu.Lock()
		s.forget(name)
		s.mu.Unlock()
	}
	return nil
}

// Unpack makes the snapshots of an image that was imported without them.
func (s *Store) Unpack(ctx context.Context, image *Image) error {
	if len(image.Names) == 0 {
		return fmt.Errorf("image %s: %w", image.ID, ErrNotFound)
	}
	record, err := s.options.Client.GetImage(ctx, image.Names[0])
	if err != nil {
		return fmt.Errorf("image %q: %w", image.Names[0], err)
	}
	if err := record.Unpack(ctx, s.options.Snapshotter); err != nil {
		return fmt.Errorf("unpack image %q: %w", image.Names[0], err)
	}
	return nil
}

// record makes or updates one record.
func (s *Store) record(ctx context.Context, r containerdimages.Image) error {
	service := s.options.Client.ImageService()
	have, err := service.Get(ctx, r.Name)
	if err == nil && have.Target.Digest == r.Target.Digest && have.Labels[managedLabel] == managedValue {
		return nil
	}
	if _, err := service.Create(ctx, r); err == nil || !errdefs.IsAlreadyExists(err) {
		return err
	}
	_, err = service.Update(ctx, r, "target", "labels."+managedLabel)
	return err
}

func digestName(name string, d digest.Digest) (string, bool) {
	repository, ok := repositoryOf(name)
	return repository + "@" + d.String(), ok
}
