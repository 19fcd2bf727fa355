package image

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// accounts has one service account, whose tokens name their audience.
type accounts struct{}

func (accounts) ServiceAccount(_ context.Context, namespace, name string) (*v1.ServiceAccount, error) {
	return &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid", Annotations: map[string]string{"role": "puller"}}}, nil
}

func (accounts) Token(_ context.Context, _ *v1.Pod, audience string, _ *int64) (string, time.Time, error) {
	return "token-for-" + audience, time.Time{}, nil
}

// program writes a provider that notes each request and answers with that text.
func program(t *testing.T, dir, name, answer string) {
	t.Helper()
	text := fmt.Sprintf("#!/bin/sh\ncat >> %[1]s/%[2]s.requests\necho >> %[1]s/%[2]s.requests\ncat <<END\n%[3]s\nEND\n", dir, name, answer)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func response(cache, duration, auth string) string {
	return fmt.Sprintf(`{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":%q,"cacheDuration":%q,"auth":{%s}}`, cache, duration, auth)
}

const providersFile = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: cloud
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.cloud.example.com/team"]
  defaultCacheDuration: 1h
- name: once
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["once.example.com:5000"]
  defaultCacheDuration: 1h
- name: broken
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.cloud.example.com"]
  defaultCacheDuration: 0s
- name: account
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["account.example.com"]
  defaultCacheDuration: 1h
  tokenAttributes:
    serviceAccountTokenAudience: registry
    cacheType: Token
    requireServiceAccount: true
    requiredServiceAccountAnnotationKeys: ["role"]
`

func TestCredentialProvidersAreAskedAndTheirAnswersKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program(t, dir, "cloud", response("Registry", "1h", `"*.cloud.example.com":{"username":"cloud","password":"p"},"*.cloud.example.com/team/app":{"username":"app","password":"p"},"other.example.com":{"username":"other","password":"p"}`))
	program(t, dir, "once", response("Image", "0s", `"once.example.com:5000":{"username":"once","password":"p"}`))
	program(t, dir, "broken", "no JSON")
	program(t, dir, "account", response("Image", "1h", `"account.example.com":{"username":"account","password":"p"}`))
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(providersFile), 0o600); err != nil {
		t.Fatal(err)
	}
	providers, err := LoadProviders(config, dir, accounts{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	keyring := &Keyring{Providers: providers}
	look := func(pod *v1.Pod, image string) string {
		t.Helper()
		list, err := keyring.Lookup(t.Context(), pod, nil, image)
		if err != nil {
			t.Fatal(err)
		}
		var users []string
		for _, c := range list {
			user := c.Auth.GetUsername()
			if c.ServiceAccount != nil {
				user += " for " + c.ServiceAccount.Name
			}
			users = append(users, user)
		}
		return strings.Join(users, ",")
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}, Spec: v1.PodSpec{ServiceAccountName: "default"}}
	for _, step := range []struct{ image, want string }{
		{"eu.cloud.example.com/team/app:1", "app,cloud"}, {"eu.cloud.example.com/team/web", "cloud"}, {"eu.cloud.example.com/elsewhere", ""},
		{"once.example.com:5000/x", "once"}, {"once.example.com:5000/x", "once"}, {"account.example.com/x", "account for default"}, {"account.example.com/x", "account for default"}, {"nginx", ""},
	} {
		if got := look(pod, step.image); got != step.want {
			t.Errorf("%s: %q, want %q", step.image, got, step.want)
		}
	}
	if got := look(&v1.Pod{}, "account.example.com/x"); got != "" {
		t.Errorf("a pod without a service account: %q", got)
	}
	requests := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name+".requests"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if got := requests("cloud"); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"eu.cloud.example.com/team/app:1"`) {
		t.Errorf("kept for the registry, but asked %q", got)
	}
	if got := requests("once"); strings.Count(got, "\n") != 2 {
		t.Errorf("an answer for no time, but asked %q", got)
	}
	if got := requests("account"); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"serviceAccountToken":"token-for-registry","serviceAccountAnnotations":{"role":"puller"}`) {
		t.Errorf("with a service account: %q", got)
	}
}

func TestAWrongConfigurationOfProvidersIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program(t, dir, "cloud", "")
	for change, want := range map[[2]string]string{
		{"name: cloud", "name: missing"}:                               "providers[0]: plugin binary executable",
		{"matchImages: [\"*.cloud.example.com/team\"]", ""}:            "providers[0]: matchImages: at least one pattern is needed",
		{"defaultCacheDuration: 1h", "cacheTime: 1h"}:                  `unknown field "cacheTime"`,
		{"credentialprovider.kubelet.k8s.io/v1", "x/v1"}:               `providers[0]: apiVersion "x/v1": this release knows credentialprovider.kubelet.k8s.io/v1`,
		{"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1alpha1"}: `apiVersion "kubelet.config.k8s.io/v1alpha1"`,
	} {
		file := filepath.Join(dir, "config.yaml")
		if err := os.WriteFile(file, []byte(strings.Replace(providersFile, change[0], change[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadProviders(file, dir, accounts{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q instead of %q: %v, want %s", change[1], change[0], err, want)
		}
	}
}
