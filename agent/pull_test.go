package agent_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// privateRegistry holds private/app for ann and cloud/app for bob, whose password
// is pass, and returns its host.
func privateRegistry(t *testing.T) string {
	t.Helper()
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for prefix, owner := range map[string]string{"/v2/private/": "ann", "/v2/cloud/": "bob"} {
			if user, password, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, prefix) && (r.Method == http.MethodGet || r.Method == http.MethodHead) && (user != owner || password != "pass") && r.Header.Get("X-Push") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	for _, repository := range []string{"private/app", "cloud/app"} {
		ref, err := name.ParseReference(host+"/"+repository+":1", name.Insecure)
		must(t, err)
		must(t, remote.Write(ref, busybox(t), remote.WithTransport(pusher{})))
	}
	return host
}

// pusher looks at what is there already without credentials.
type pusher struct{}

func (pusher) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Push", "yes")
	return http.DefaultTransport.RoundTrip(r)
}

func TestPrivateImagesComeWithTheRightCredentials(t *testing.T) {
	m := newMachine(t)
	host := privateRegistry(t)
	bin := filepath.Join(m.dir, "bin")
	must(t, os.MkdirAll(bin, 0o755))
	provider := fmt.Sprintf("#!/bin/sh\ncat >/dev/null\necho '%s'\n", fmt.Sprintf(
		`{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":"Registry","auth":{"%s/cloud":{"username":"bob","password":"pass"}}}`, host))
	must(t, os.WriteFile(filepath.Join(bin, "cloud"), []byte(provider), 0o755))
	m.settings.ImageCredentialProviderBinDir, m.settings.ImageCredentialProviderConfig = bin, filepath.Join(m.dir, "providers.yaml")
	must(t, os.WriteFile(m.settings.ImageCredentialProviderConfig, []byte(fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- {name: cloud, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: ["%s/cloud"], defaultCacheDuration: 1h}
`, host)), 0o600))
	_, err := m.client.CoreV1().Secrets("default").Create(context.Background(), &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "ann", Namespace: "default", UID: "secret"}, Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{
			v1.DockerConfigJsonKey: []byte(fmt.Sprintf(`{"auths":{"%s":{"auth":"%s"}}}`, host, base64.StdEncoding.EncodeToString([]byte("ann:pass")))),
		},
	}, metav1.CreateOptions{})
	must(t, err)
	m.start()
	m.ready()
	run := func(name, image string, secrets ...string) {
		t.Helper()
		spec := v1.PodSpec{RestartPolicy: v1.RestartPolicyAlways, Containers: []v1.Container{{Name: "app", Image: host + "/" + image, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"}}}}
		for _, s := range secrets {
			spec.ImagePullSecrets = append(spec.ImagePullSecrets, v1.LocalObjectReference{Name: s})
		}
		m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
	}
	waiting := func(name string) v1.ContainerStateWaiting {
		if pod := m.pod(name); pod != nil && len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].State.Waiting != nil {
			return *pod.Status.ContainerStatuses[0].State.Waiting
		}
		return v1.ContainerStateWaiting{}
	}
	denied := func(name string) {
		t.Helper()
		testenv.Eventually(t, 40*time.Second, func() bool {
			w := waiting(name)
			return w.Reason == "ImagePullBackOff" && strings.HasPrefix(w.Message, fmt.Sprintf("Back-off pulling image %q: ErrImagePull: ", host+"/private/app:1")) && strings.Contains(w.Message, "pull access denied")
		}, "pod %s says why its image is not pulled", name)
	}

	run("without", "private/app:1")
	denied("without")
	run("with", "private/app:1", "ann")
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("with")) }, "the pod with the pull secret is Ready: %+v", waiting("with"))
	// The image is here now; that is no reason to give it to everybody, after a restart of the agent either.
	run("again", "private/app:1")
	denied("again")
	m.stop()
	m.start()
	run("later", "private/app:1")
	denied("later")
	run("too", "private/app:1", "ann")
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("too")) }, "another pod with the pull secret is Ready: %+v", waiting("too"))
	run("missing", "private/app:1", "nobody")
	denied("missing")
	run("provided", "cloud/app:1")
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("provided")) }, "the pod of a provider's registry is Ready: %+v", waiting("provided"))
	for reason, want := range map[string]string{
		"FailedToRetrieveImagePullSecret": "Unable to retrieve some image pull secrets (nobody); attempting to pull the image may not succeed.",
		"Pulled":                          fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", host+"/private/app:1"),
		"Failed":                          "Error: ErrImagePull",
		"BackOff":                         fmt.Sprintf("Back-off pulling image %q", host+"/private/app:1"),
	} {
		found := false
		for _, message := range m.events(reason) {
			found = found || message == want
		}
		if !found {
			t.Errorf("no event %s %q among %q", reason, want, m.events(reason))
		}
	}
}
