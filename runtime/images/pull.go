package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	containerdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// layersAtOnce is how many layers of one image are fetched at a time.
const layersAtOnce = 3

// pulls are those under way: who wants the same image with the same credentials waits for the first.
type pulls struct {
	mu    *sync.Mutex
	under map[pullKey]*pull
}

type pullKey struct {
	name                                                       string
	user, password, auth, server, identityToken, registryToken string
}

type pull struct {
	waiting int // who would be left without it; guarded by pulls.mu
	cancel  context.CancelFunc
	done    chan struct{}
	id      string
	err     error
}

func newPulls() pulls { return pulls{mu: &sync.Mutex{}, under: map[pullKey]*pull{}} }

// Pull fetches and unpacks an image and returns its ID.
func (s *Store) Pull(ctx context.Context, ref string, auth *runtimeapi.AuthConfig) (string, error) {
	name, err := Normalize(ref)
	if err != nil {
		return "", fmt.Errorf("failed to parse image reference %q: %w", ref, err)
	}
	key := pullKey{name, auth.GetUsername(), auth.GetPassword(), auth.GetAuth(), auth.GetServerAddress(), auth.GetIdentityToken(), auth.GetRegistryToken()}
	s.pulls.mu.Lock()
	p, ok := s.pulls.under[key]
	if !ok {
		// The pull goes on when the first who wanted it gives up and others wait.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		p = &pull{cancel: cancel, done: make(chan struct{})}
		s.pulls.under[key] = p
		go func() {
			defer cancel()
			p.id, p.err = s.pull(own, name, auth)
			s.pulls.mu.Lock()
			if s.pulls.under[key] == p {
				delete(s.pulls.under, key)
			}
			s.pulls.mu.Unlock()
			close(p.done)
		}()
	}
	p.waiting++
	s.pulls.mu.Unlock()
	select {
	case <-p.done:
		return p.id, p.err
	case <-ctx.Done():
		s.pulls.mu.Lock()
		defer s.pulls.mu.Unlock()
		if p.waiting--; p.waiting == 0 {
			p.cancel()
			if s.pulls.under[key] == p {
				delete(s.pulls.under, key) // a dying pull takes no new waiters
			}
		}
		return "", fmt.Errorf("failed to pull and unpack image %q: %w", name, ctx.Err())
	}
}

func (s *Store) pull(ctx context.Context, name string, auth *runtimeapi.AuthConfig) (string, error) {
	// Parts of the client that run here look for the namespace in the context.
	ctx = namespaces.WithNamespace(ctx, s.options.Namespace)
	// They also log every host that is tried; the error they return says the same.
	ctx = log.WithLogger(ctx, logrus.NewEntry(&logrus.Logger{Out: io.Discard, Formatter: &logrus.TextFormatter{}, Level: logrus.PanicLevel}))
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: config.ConfigureHosts(ctx, config.HostOptions{
			HostDir:     config.HostDirFromRoot(s.options.ConfigDir),
			Credentials: func(host string) (string, string, error) { return credentials(auth, host) },
		}),
	})
	leased, end, err := s.lease(ctx)
	if err != nil {
		return "", fmt.Errorf("failed to pull image %q: %w", name, err)
	}
	defer end()
	image, err := s.options.Client.Pull(leased, name,
		containerd.WithResolver(resolver),
		containerd.WithPullSnapshotter(s.options.Snapshotter),
		containerd.WithPullUnpack,
		containerd.WithPullLabel(managedLabel, managedValue),
		containerd.WithMaxConcurrentDownloads(layersAtOnce),
	)
	if err != nil {
		return "", fmt.Errorf("failed to pull and unpack image %q: %w", name, err)
	}
	descriptor, err := image.Config(ctx)
	if err != nil {
		return "", fmt.Errorf("configuration of image %q: %w", name, err)
	}
	id := descriptor.Digest.String()
	names := []string{name, id}
	if byDigest, ok := digestName(name, image.Target().Digest); ok && byDigest != name {
		names = append(names, byDigest)
	}
	labels := map[string]string{managedLabel: managedValue}
	for _, n := range names {
		if n != name {
			if err := s.record(ctx, containerdimages.Image{Name: n, Target: image.Target(), Labels: labels}); err != nil {
				return "", fmt.Errorf("name image %q %q: %w", name, n, err)
			}
		}
		if err := s.Refresh(ctx, n); err != nil {
			return "", err
		}
	}
	return id, nil
}

func repositoryOf(name string) (string, bool) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", false
	}
	return named.Name(), true
}

// credentials are user and secret for a registry host. A server address limits them to that host.
func credentials(auth *runtimeapi.AuthConfig, host string) (user, secret string, err error) {
	if auth == nil {
		return "", "", nil
	}
	if server := auth.GetServerAddress(); server != "" {
		if !strings.Contains(server, "://") {
			server = "https://" + server
		}
		u, err := url.Parse(server)
		if err != nil {
			return "", "", fmt.Errorf("server address %q of the image credentials: %w", auth.GetServerAddress(), err)
		}
		// Docker Hub is known by several names.
		if u.Host != host && !(isDockerHub(u.Host) && isDockerHub(host)) {
			return "", "", nil
		}
	}
	switch {
	case auth.GetUsername() != "":
		return auth.GetUsername(), auth.GetPassword(), nil
	case auth.GetIdentityToken() != "":
		return "", auth.GetIdentityToken(), nil
	case auth.GetAuth() != "":
		decoded, err := base64.StdEncoding.DecodeString(auth.GetAuth())
		if err != nil {
			return "", "", fmt.Errorf("image credentials: %w", err)
		}
		user, password, ok := strings.Cut(string(decoded), ":")
		if !ok {
			return "", "", errors.New("image credentials: auth holds no colon")
		}
		return user, strings.Trim(password, "\x00"), nil
	case auth.GetRegistryToken() != "":
		return "", "", errors.New("image credentials: a registry token alone is not supported")
	}
	return "", "", nil
}

func isDockerHub(host string) bool {
	return host == "docker.io" || host == "index.docker.io" || host == "registry-1.docker.io"
}

func parseConfig(blob []byte) (ocispec.Image, error) {
	var image ocispec.Image
	err := json.Unmarshal(blob, &image)
	return image, err
}
