package runtime_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestImagesArePulledFromAMirrorOfDockerHub(t *testing.T) {
	testenv.RequireRoot(t)
	var manifests atomic.Int32
	var user atomic.Value
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/secret/") && r.Method != http.MethodPut {
			name, password, _ := r.BasicAuth()
			if name != "ann" || password != "pass" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			user.Store(name)
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
			manifests.Add(1)
		}
		store.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	push := func(repository string) {
		t.Helper()
		ref, err := name.ParseReference(host+"/"+repository, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, busybox(t)); err != nil {
			t.Fatal(err)
		}
	}
	push("library/web:1.0")

	number := 160
	for generation, bin := range installs(t) {
		number++
		t.Run(generation, func(t *testing.T) {
			d := startContainerd(t, bin)
			hosts := filepath.Join(d.dir, "certs.d", "docker.io")
			if err := os.MkdirAll(hosts, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(hosts, "hosts.toml"), []byte(fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", server.URL, server.URL)), 0o644); err != nil {
				t.Fatal(err)
			}
			h := &harness{T: t, d: d, number: number}
			h.open()
			t.Cleanup(h.cleanUp)
			manifests.Store(0)
			var wg sync.WaitGroup
			var ids sync.Map
			for range 5 {
				wg.Go(func() {
					id, err := h.rt.PullImage(h.ctx(), &runtimeapi.ImageSpec{Image: "web:1.0"}, nil, nil)
					if err != nil {
						t.Error(err)
					}
					ids.Store(id, true)
				})
			}
			wg.Wait()
			if n := manifests.Load(); n > 2 {
				t.Errorf("five pulls at once fetched %d manifests", n)
			}
			count := 0
			ids.Range(func(id, _ any) bool {
				count++
				status, err := h.rt.ImageStatus(h.ctx(), &runtimeapi.ImageSpec{Image: id.(string)}, false)
				h.must(err)
				image := status.GetImage()
				if len(image.GetRepoTags()) == 0 || image.GetId() != id {
					t.Errorf("image %v", image)
				}
				digests := strings.Join(image.GetRepoDigests(), " ")
				if !strings.Contains(digests, "docker.io/library/web@sha256:") {
					t.Errorf("digests %s", digests)
				}
				return true
			})
			if count != 1 {
				t.Errorf("%d IDs", count)
			}
			pod, config := h.runPod()
			h.expect(h.output(pod, config, "main", "echo pulled", func(c *runtimeapi.ContainerConfig) { c.Image.Image = "web:1.0" }), "pulled")

			if _, err := h.rt.PullImage(h.ctx(), &runtimeapi.ImageSpec{Image: "web:2.0"}, nil, nil); err == nil || !strings.Contains(err.Error(), `failed to pull and unpack image "docker.io/library/web:2.0": failed to resolve reference "docker.io/library/web:2.0"`) || !strings.Contains(err.Error(), "not found") {
				t.Errorf("a missing tag: %v", err)
			}
			secret := &runtimeapi.ImageSpec{Image: host + "/secret/web:1.0"}
			if _, err := h.rt.PullImage(h.ctx(), secret, nil, nil); err == nil || !strings.Contains(err.Error(), "pull access denied") {
				t.Errorf("without credentials: %v", err)
			}
			if _, err := h.rt.PullImage(h.ctx(), secret, &runtimeapi.AuthConfig{Username: "ann", Password: "pass", ServerAddress: "elsewhere.example"}, nil); err == nil {
				t.Error("credentials of another registry were sent")
			}
			// The image is not there, but the registry let us look.
			_, err := h.rt.PullImage(h.ctx(), secret, &runtimeapi.AuthConfig{Auth: "YW5uOnBhc3M=", ServerAddress: host}, nil)
			if err == nil || !strings.Contains(err.Error(), "not found") || user.Load() != "ann" {
				t.Errorf("with credentials: %v", err)
			}
			h.must(h.rt.RemoveImage(h.ctx(), &runtimeapi.ImageSpec{Image: "docker.io/library/web:1.0"}))
			status, err := h.rt.ImageStatus(h.ctx(), &runtimeapi.ImageSpec{Image: "web:1.0"}, false)
			if err != nil || status.GetImage() != nil {
				t.Errorf("after removal: %v %v", status.GetImage(), err)
			}
		})
	}
}
