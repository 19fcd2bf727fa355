package apiserver

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestMain(m *testing.M) {
	// A minute upstream; the variable may only be set before any server runs.
	controller.EncryptionConfigFileChangePollDuration = 50 * time.Millisecond
	os.Exit(m.Run())
}

// keyring is an EncryptionConfiguration of secrets.
type keyring []string

// key is a provider with one key.
func key(provider, name, secret string) string {
	return fmt.Sprintf("      - %s:\n          keys:\n            - name: %s\n              secret: %s\n", provider, name, secret)
}

const plainProvider = "      - identity: {}\n"

func (k keyring) write(t *testing.T, path string) {
	t.Helper()
	content := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources: [secrets]\n    providers:\n" + strings.Join(k, "")
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func newKey() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	return base64.StdEncoding.EncodeToString(secret)
}

func clientOf(t *testing.T, r *running) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func createSecret(t *testing.T, client kubernetes.Interface, name, value string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": value}}
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// stored is what the store holds for a secret.
func (r *running) stored(t *testing.T, name string) string {
	t.Helper()
	kv, _, err := r.store.Get("/registry/secrets/default/"+name, 0)
	if err != nil || kv == nil {
		t.Fatalf("secret %s is not stored: %v", name, err)
	}
	return string(kv.Value)
}

// onDisk says which of the texts some file below dir contains.
func onDisk(t *testing.T, dir string, texts ...string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, text := range texts {
			found[text] = found[text] || bytes.Contains(data, []byte(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestNoPlaintextOfSecretsIsOnDisk(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{"secretbox", "aesgcm", "aescbc", "identity"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			dir, config := t.TempDir(), filepath.Join(t.TempDir(), "encryption.yaml")
			keys := keyring{key(provider, "key1", newKey()), plainProvider}
			if provider == "identity" {
				keys = keyring{plainProvider}
			}
			keys.write(t, config)
			server := serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
			client := clientOf(t, server)
			secret, open := rand.Text(), rand.Text()
			createSecret(t, client, "hidden", secret)
			if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "open"}, Data: map[string]string{"value": open},
			}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			read, err := client.CoreV1().Secrets("default").Get(t.Context(), "hidden", metav1.GetOptions{})
			if err != nil || string(read.Data["value"]) != secret {
				t.Fatalf("read back %q, %v", read.Data["value"], err)
			}
			if err := server.stop(); err != nil {
				t.Fatal(err)
			}
			encoded := base64.StdEncoding.EncodeToString([]byte(secret))
			mark := "k8s:enc:" + provider + ":v1:key1:"
			found := onDisk(t, filepath.Join(dir, "store"), secret, encoded, open, mark)
			if !found[open] {
				t.Error("the search does not find what is stored in plain")
			}
			// Without encryption the secret must be found, or the search proves nothing.
			if plain := provider == "identity"; found[secret] != plain || found[encoded] || found[mark] == plain {
				t.Errorf("found on disk: %v", found)
			}
		})
	}
}

// The steps of Kubernetes' documentation, on a running server: the file is read
// again by itself.
func TestKeysAreRotated(t *testing.T) {
	t.Parallel()
	dir, config := t.TempDir(), filepath.Join(t.TempDir(), "encryption.yaml")
	first, second := key("aescbc", "key1", newKey()), key("secretbox", "key2", newKey())
	keyring{plainProvider}.write(t, config)
	server := serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
	client := clientOf(t, server)
	createSecret(t, client, "plain", "value of plain")

	encrypted := func(mark string) {
		t.Helper()
		tries := 0
		testenv.Eventually(t, 20*time.Second, func() bool {
			tries++
			name := fmt.Sprintf("probe-%d-%s", tries, strings.ToLower(rand.Text()))
			createSecret(t, client, name, "value of "+name)
			return strings.HasPrefix(server.stored(t, name), mark)
		}, "new secrets are stored with %s", mark)
	}
	keyring{first, plainProvider}.write(t, config)
	encrypted("k8s:enc:aescbc:v1:key1:")
	createSecret(t, client, "old", "value of old")
	// The new key is known everywhere before anybody writes with it.
	keyring{first, second, plainProvider}.write(t, config)
	keyring{second, first, plainProvider}.write(t, config)
	encrypted("k8s:enc:secretbox:v1:key2:")
	if !strings.HasPrefix(server.stored(t, "old"), "k8s:enc:aescbc:v1:key1:") {
		t.Error("nobody has rewritten the old secret yet")
	}
	// kubectl get secrets -A -o json | kubectl replace -f -
	all, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all.Items {
		if _, err := client.CoreV1().Secrets(all.Items[i].Namespace).Update(t.Context(), &all.Items[i], metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, secret := range all.Items {
		if stored := server.stored(t, secret.Name); !strings.HasPrefix(stored, "k8s:enc:secretbox:v1:key2:") {
			t.Errorf("%s is stored as %.30q after it was replaced", secret.Name, stored)
		}
	}
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	keyring{second}.write(t, config)
	server = serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
	client = clientOf(t, server)
	again, err := client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(again.Items) != len(all.Items) {
		t.Fatalf("with the new key alone there are %d secrets of %d: %v", len(again.Items), len(all.Items), err)
	}
	for _, secret := range again.Items {
		if string(secret.Data["value"]) != "value of "+secret.Name {
			t.Errorf("%s holds %q", secret.Name, secret.Data["value"])
		}
	}
}

// Losing a key leaves objects that nobody can read. They are named, and can be
// deleted by who says that he knows what he does.
func TestUnreadableObjectsCanBeDeleted(t *testing.T) {
	t.Parallel()
	dir, config := t.TempDir(), filepath.Join(t.TempDir(), "encryption.yaml")
	keyring{key("secretbox", "lost", newKey())}.write(t, config)
	server := serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
	createSecret(t, clientOf(t, server), "unreadable", "x")
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	keyring{key("secretbox", "other", newKey())}.write(t, config)
	server = serve(t, dir, func(c *Config) { c.EncryptionConfig = config })
	secrets := clientOf(t, server).CoreV1().Secrets("default")
	createSecret(t, clientOf(t, server), "readable", "y")

	if _, err := secrets.Get(t.Context(), "unreadable", metav1.GetOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("reading it: %v", err)
	}
	_, err := secrets.List(t.Context(), metav1.ListOptions{})
	if apierrors.ReasonForError(err) != metav1.StatusReasonStoreReadError || !strings.Contains(err.Error(), "/registry/secrets/default/unreadable") {
		t.Errorf("listing: %v", err)
	}
	if err := secrets.Delete(t.Context(), "unreadable", metav1.DeleteOptions{}); err == nil {
		t.Error("it was deleted like any other object")
	}
	ignore := metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: new(true)}
	if err := secrets.Delete(t.Context(), "readable", ignore); !apierrors.IsConflict(err) {
		t.Errorf("deleting a readable object that way: %v", err)
	}
	if err := secrets.Delete(t.Context(), "unreadable", ignore); err != nil {
		t.Errorf("deleting it: %v", err)
	}
	if rest, err := secrets.List(t.Context(), metav1.ListOptions{}); err != nil || len(rest.Items) != 1 {
		t.Errorf("afterwards: %v, %v", rest.Items, err)
	}
}

func TestAWrongEncryptionConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, says string }{
		"unknown field":     {"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresource: []\n", `unknown field "resource"`},
		"short key":         {"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources: [secrets]\n    providers:\n" + key("secretbox", "k", "c2hvcnQ="), "resources[0].providers[0].secretbox.keys[0].secret"},
		"nothing in it":     {"", "is empty"},
		"no providers":      {"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources: [secrets]\n", "resources[0].providers"},
		"another kind":      {"apiVersion: v1\nkind: Pod\n", `"Pod"`},
		"a file that lacks": {"-", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "encryption.yaml")
			if test.content != "-" {
				if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := storageEncryption(t, path)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "encryptionConfig") {
				t.Errorf("got %v, it should say %q and the field encryptionConfig", err, test.says)
			}
		})
	}
}
