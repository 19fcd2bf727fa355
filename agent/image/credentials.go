package image

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// credential is one entry of a docker configuration.
type credential struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials returns what to try for an image, in order: the entries of the
// pull secrets that match it, the most specific first, or nothing at all.
func credentials(secrets []*v1.Secret, image string) []*runtimeapi.AuthConfig {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return []*runtimeapi.AuthConfig{nil}
	}
	type match struct {
		key  string
		auth *runtimeapi.AuthConfig
	}
	var matches []match
	for _, secret := range secrets {
		for registry, c := range entries(secret) {
			host, prefix := splitRegistry(registry)
			if matchesImage(host, prefix, reference.Domain(named), reference.Path(named)) {
				matches = append(matches, match{host + "/" + prefix, c.config()})
			}
		}
	}
	if len(matches) == 0 {
		return []*runtimeapi.AuthConfig{nil}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return cmp.Compare(len(b.key), len(a.key)) })
	list := make([]*runtimeapi.AuthConfig, 0, len(matches))
	for _, m := range matches {
		list = append(list, m.auth)
	}
	return list
}

func entries(secret *v1.Secret) map[string]credential {
	switch secret.Type {
	case v1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]credential `json:"auths"`
		}
		if json.Unmarshal(secret.Data[v1.DockerConfigJsonKey], &config) == nil {
			return config.Auths
		}
	case v1.SecretTypeDockercfg:
		var auths map[string]credential
		if json.Unmarshal(secret.Data[v1.DockerConfigKey], &auths) == nil {
			return auths
		}
	}
	return nil
}

func (c credential) config() *runtimeapi.AuthConfig {
	config := &runtimeapi.AuthConfig{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
	if c.Username == "" && c.Auth != "" {
		if decoded, err := base64.StdEncoding.DecodeString(c.Auth); err == nil {
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
