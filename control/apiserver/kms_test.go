package apiserver

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kms/pkg/service"

	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/internal/testenv"
)

func storageEncryption(t *testing.T, path string) (*storage.Encryption, error) {
	encryption, err := storage.LoadEncryption(path, "test", slog.New(slog.DiscardHandler))
	if err == nil {
		t.Cleanup(encryption.Close)
	}
	return encryption, err
}

// keyService is a KMS v2 plugin that wraps keys with AES-GCM under one of its
// keys.
type keyService struct {
	keys    map[string]cipher.AEAD
	current atomic.Pointer[string]
	broken  atomic.Bool
	// calls counts what was asked of it beside its status.
	calls atomic.Int64
}

func newKeyService(t *testing.T, names ...string) *keyService {
	s := &keyService{keys: map[string]cipher.AEAD{}}
	for _, name := range names {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // it never fails
		block, err := aes.NewCipher(secret)
		if err != nil {
			t.Fatal(err)
		}
		if s.keys[name], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			t.Fatal(err)
		}
	}
	s.current.Store(&names[0])
	return s
}

var errBroken = errors.New("the plugin is out of order")

// Status implements service.Service.
func (s *keyService) Status(context.Context) (*service.StatusResponse, error) {
	if s.broken.Load() {
		return nil, errBroken
	}
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: *s.current.Load()}, nil
}

// Encrypt implements service.Service.
func (s *keyService) Encrypt(_ context.Context, _ string, data []byte) (*service.EncryptResponse, error) {
	s.calls.Add(1)
	if s.broken.Load() {
		return nil, errBroken
	}
	id := *s.current.Load()
	return &service.EncryptResponse{Ciphertext: s.keys[id].Seal(nil, nil, data, nil), KeyID: id}, nil
}

// Decrypt implements service.Service.
func (s *keyService) Decrypt(_ context.Context, _ string, request *service.DecryptRequest) ([]byte, error) {
	s.calls.Add(1)
	if s.broken.Load() {
		return nil, errBroken
	}
	known, ok := s.keys[request.KeyID]
	if !ok {
		return nil, fmt.Errorf("no key %q", request.KeyID)
	}
	return known.Open(nil, nil, request.Ciphertext, nil)
}

func TestSecretsAreEncryptedByAKeyManagementService(t *testing.T) {
	t.Parallel()
	plugin := newKeyService(t, "first", "second")
	dir, config := t.TempDir(), filepath.Join(t.TempDir(), "encryption.yaml")
	socket := filepath.Join(t.TempDir(), "kms.sock")
	endpoint := service.NewGRPCService(socket, 5*time.Second, plugin)
	served := make(chan error, 1)
	go func() { served <- endpoint.ListenAndServe() }()
	t.Cleanup(func() {
		endpoint.Close()
		<-served
	})
	keyring{fmt.Sprintf("      - kms:\n          apiVersion: v2\n          name: test\n          endpoint: unix://%s\n          timeout: 3s\n", socket), plainProvider}.write(t, config)
	server := serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
	client := clientOf(t, server)
	value := rand.Text()
	createSecret(t, client, "hidden", value)
	if stored := server.stored(t, "hidden"); !strings.HasPrefix(stored, "k8s:enc:kms:v2:test:") {
		t.Fatalf("stored as %.40q", stored)
	}
	// One key encrypts many objects: the plugin is asked once for each server.
	asked := plugin.calls.Load()
	for i := range 20 {
		createSecret(t, client, fmt.Sprint("more-", i), value)
	}
	if more := plugin.calls.Load() - asked; more != 0 {
		t.Errorf("20 secrets asked the plugin %d times", more)
	}

	plugin.broken.Store(true)
	healthy := func() bool {
		_, err := client.CoreV1().RESTClient().Get().AbsPath("/readyz/kms-providers").DoRaw(t.Context())
		return err == nil
	}
	testenv.Eventually(t, 30*time.Second, func() bool { return !healthy() }, "readyz tells of the broken plugin")
	if _, err := client.CoreV1().RESTClient().Get().AbsPath("/livez").DoRaw(t.Context()); err != nil {
		t.Errorf("a broken plugin is no reason to restart the server: %v", err)
	}
	if read, err := client.CoreV1().Secrets("default").Get(t.Context(), "hidden", metav1.GetOptions{}); err != nil || string(read.Data["value"]) != value {
		t.Errorf("what is decrypted already is served: %v", err)
	}
	plugin.broken.Store(false)
	testenv.Eventually(t, 30*time.Second, healthy, "readyz tells that the plugin works again")

	// The plugin rotates its key; both are known to it.
	second := "second"
	plugin.current.Store(&second)
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	server = serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
	client = clientOf(t, server)
	read, err := client.CoreV1().Secrets("default").Get(t.Context(), "hidden", metav1.GetOptions{})
	if err != nil || string(read.Data["value"]) != value {
		t.Fatalf("after a restart: %v", err)
	}
	before := server.stored(t, "hidden")
	replace(t, client, "hidden")
	if server.stored(t, "hidden") == before {
		t.Error("a secret under an old key of the plugin is not written anew")
	}
	now := server.stored(t, "hidden")
	replace(t, client, "hidden")
	if server.stored(t, "hidden") != now {
		t.Error("a secret under the current key is written anew for nothing")
	}
	if found := onDisk(t, filepath.Join(dir, "store"), value); found[value] {
		t.Error("the plaintext is on disk")
	}
}

// replace writes a secret as it is.
func replace(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	secret, err := client.CoreV1().Secrets("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("default").Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
