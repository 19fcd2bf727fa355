package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// entry is one entry of a docker configuration.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Credential is something to try for an image.
type Credential struct {
	Auth *runtimeapi.AuthConfig
	// Secret or ServiceAccount is where it comes from; both nil: from the node,
	// where every pod may use it.
	Secret         *SecretSource
	ServiceAccount *AccountSource
}

// SecretSource is a pull secret. Hash tells its credential apart from another of the same secret.
type SecretSource struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Hash      string `json:"credentialHash,omitempty"`
}

// AccountSource is a service account.
type AccountSource struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Keyring finds credentials: in pull secrets, in files of the node, and by
// asking the credential providers.
type Keyring struct {
	// Files are docker configurations of the node; those that do not exist are none.
	Files     []string
	Providers *Providers // nil: none
	// Logger is told of files that cannot be read; they are none.
	Logger *slog.Logger
}

// NodeFiles are the docker configurations that every pod of a node may use.
func NodeFiles(rootDir string) []string {
	return []string{filepath.Join(rootDir, "config.json"), "/root/.docker/config.json", "/.docker/config.json"}
}

// Lookup returns what to try for a pod's image, in order: the entries of the pull
// secrets, then those of the node, then the providers'; of each the most specific
// first. None is left to be tried without any.
func (k *Keyring) Lookup(ctx context.Context, pod *v1.Pod, secrets []*v1.Secret, image string) ([]Credential, error) {
	domain, repository, err := split(image)
	if err != nil {
		return nil, err
	}
	var list []Credential
	var own []match
	for _, secret := range secrets {
		for _, m := range matching(entriesOf(secret), domain, repository) {
			m.Secret = &SecretSource{UID: string(secret.UID), Namespace: secret.Namespace, Name: secret.Name, Hash: hash(m.Auth)}
			own = append(own, m)
		}
	}
	list = appendSorted(list, own)
	var node []match
	for _, file := range k.Files {
		entries, err := readEntries(file)
		if err != nil {
			k.Logger.Warn("a file of credentials is left out", "image", image, "error", err)
		}
		node = append(node, matching(entries, domain, repository)...)
	}
	list = appendSorted(list, node)
	if k.Providers != nil {
		list = append(list, k.Providers.lookup(ctx, pod, image, domain, repository)...)
	}
	return list, nil
}

type match struct {
	Credential
	key string
}

func appendSorted(list []Credential, matches []match) []Credential {
	slices.SortStableFunc(matches, func(a, b match) int { return cmp.Or(cmp.Compare(len(b.key), len(a.key)), cmp.Compare(b.key, a.key)) })
	for _, m := range matches {
		list = append(list, m.Credential)
	}
	return list
}

// matching are the entries for an image.
func matching(entries map[string]entry, domain, repository string) []match {
	var matches []match
	for registry, e := range entries {
		host, prefix := splitRegistry(registry)
		if matchesImage(host, prefix, domain, repository) {
			matches = append(matches, match{Credential{Auth: e.config()}, host + "/" + prefix})
		}
	}
	return matches
}

// split returns the registry and the repository of an image's name.
func split(image string) (domain, repository string, err error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", "", fmt.Errorf("couldn't parse image reference %q: %w", image, err)
	}
	return reference.Domain(named), reference.Path(named), nil
}

func hash(auth *runtimeapi.AuthConfig) string {
	data, err := json.Marshal(auth)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// entriesOf reads a pull secret. One that cannot be read has none.
func entriesOf(secret *v1.Secret) map[string]entry {
	switch secret.Type {
	case v1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]entry `json:"auths"`
		}
		if json.Unmarshal(secret.Data[v1.DockerConfigJsonKey], &config) == nil {
			return config.Auths
		}
	case v1.SecretTypeDockercfg:
		var auths map[string]entry
		if json.Unmarshal(secret.Data[v1.DockerConfigKey], &auths) == nil {
			return auths
		}
	}
	return nil
}

func readEntries(file string) (map[string]entry, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("credentials for images: %w", err)
	}
	var config struct {
		Auths map[string]entry `json:"auths"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		// What it says may be secret and stays out of the message.
		return nil, fmt.Errorf("credentials for images: %s is no docker configuration", file)
	}
	return config.Auths, nil
}

func (e entry) config() *runtimeapi.AuthConfig {
	config := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Username == "" && e.Auth != "" {
		if decoded, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
			config.Username, config.Password, _ = strings.Cut(strings.TrimRight(string(decoded), "\x00"), ":")
		}
	}
	return config
}

// splitRegistry reads a key of a docker configuration, which may be a URL.
func splitRegistry(key string) (host, prefix string) {
	for _, scheme := range []string{"https://", "http://"} {
		key = strings.TrimPrefix(key, scheme)
	}
	host, prefix, _ = strings.Cut(strings.TrimSuffix(key, "/"), "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "docker.io":
		host = "docker.io"
	}
	// The old API's version is no part of a repository.
	if prefix == "v1" || prefix == "v2" {
		prefix = ""
	}
	return host, prefix
}

// matchesImage compares host parts, each of which may be a pattern, and the
// repository's beginning.
func matchesImage(host, prefix, domain, repository string) bool {
	want, have := strings.Split(host, "."), strings.Split(domain, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return prefix == "" || repository == prefix || strings.HasPrefix(repository, prefix+"/")
}
