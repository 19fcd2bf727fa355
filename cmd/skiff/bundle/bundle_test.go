package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/cmd/skiff/up"
)

// planted are secrets by where somebody has left them.
var planted = map[string]string{
	"a key":                     "MHcCAQEEIPlantedPrivateKeyBodyPlantedPrivateKeyBodyPlantedPrivat",
	"a key's second line":       "eDq9PlantedSecondLineOfThePrivateKeyPlantedSecondLineOfThePrivat",
	"a join token":              "abcdef.0123456789abcdef",
	"a service account's token": "eyJhbGciOiJSUzI1NiJ9.eyJwbGFudGVkIjoidG9rZW4ifQ.c2lnbmF0dXJlLXBsYW50ZWQ",
	"a bearer":                  "planted-bearer-value-1",
	"a password":                "planted-password-2",
	"a URL's password":          "planted-url-password-3",
	"a proxy's variable":        "planted-variable-4",
	"a container's variable":    "planted-env-5",
	"a container's argument":    "planted-argument-6",
	"an annotation":             "planted-annotation-7",
	"a Secret":                  "planted-secret-8",
	"a ConfigMap":               "planted-configmap-9",
	"a flag":                    "planted-flag-10",
	"JSON in a log line":        "planted-json-11",
	"an encryption key":         "cGxhbnRlZC1lbmNyeXB0aW9uLWtleS0xMjM0NTY3ODk=",
	"a header of a probe":       "planted-header-12",
	"a registry's auth":         "cGxhbnRlZC1yZWdpc3RyeS1hdXRoLTEz",
	"a token in a kubeconfig":   "planted-kubeconfig-token-14",
	"a key without an end":      "MIIEPlantedKeyThatWasCutOff15",
}

// pem is a private key as files have it.
func pem() string {
	return "-----BEGIN EC PRIVATE KEY-----\n" + planted["a key"] + "\n" + planted["a key's second line"] + "\n-----END EC PRIVATE KEY-----\n"
}

// plant makes a machine's files with secrets in every one of them.
func plant(t *testing.T, root string) {
	t.Helper()
	for name, content := range map[string]string{
		"etc/skiff/pki/ca.key":          pem(),
		"etc/skiff/pki/encryption.yaml": "resources:\n- providers:\n  - aescbc: {keys: [{name: a, secret: " + planted["an encryption key"] + "}]}\n  - aesgcm:\n      keys:\n      - name: b\n        secret: " + planted["an encryption key"] + "\n",
		"etc/skiff/agent.conf":          "users:\n- user:\n    token: " + planted["a token in a kubeconfig"] + "\n    client-key-data: " + base64.StdEncoding.EncodeToString([]byte(pem())) + "\n",
		"etc/skiff/agent.yaml":          "apiVersion: skiff.dev/v1\nkind: AgentConfiguration\nnodeName: here\nnodeLabels: {password: " + planted["a password"] + "}\n# https://user:" + planted["a URL's password"] + "@mirror.example/\n",
		"etc/skiff/proxy.d/50.yaml":     "# the token " + planted["a join token"] + "\n" + pem(),
		"etc/skiff/machine.yaml":        "apiVersion: skiff.dev/v1\nkind: Machine\nrole: control\ncaHash: sha256:0011\n",
		"etc/default/skiff-agent":       "SKIFF_AGENT_LOG_LEVEL=debug\nHTTPS_PROXY=" + planted["a proxy's variable"] + "\n",
		"var/log/skiff/agent.log": strings.Join([]string{
			`level=INFO msg="pod started" pod=web`, `msg=request header="Authorization: Bearer ` + planted["a bearer"] + `"`, "--token " + planted["a flag"] + " --v=2",
			`{"auths":{"r.example":{"auth":"` + planted["a registry's auth"] + `"}},"Password": "` + planted["JSON in a log line"] + `"}`,
			`msg="{\"password\":\"` + planted["JSON in a log line"] + `\"}"`, "mounted " + planted["a service account's token"],
			"key " + strings.ReplaceAll(pem(), "\n", `\n`), "learnt " + planted["a token in a kubeconfig"] + " and " + base64.StdEncoding.EncodeToString([]byte(planted["a token in a kubeconfig"])),
			"-----BEGIN RSA PRIVATE KEY-----\n" + planted["a key without an end"],
		}, "\n"),
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// objects are a cluster's, with secrets where people leave them.
func objects() *fake.Clientset {
	meta := metav1.ObjectMeta{Name: "web", Namespace: "default", Annotations: map[string]string{
		"kubectl.kubernetes.io/last-applied-configuration": `{"env":"` + planted["an annotation"] + `"}`, "team": planted["an annotation"],
	}}
	container := corev1.Container{
		Name: "c", Image: "registry.example/web:1", Args: []string{planted["a container's argument"]}, Command: []string{"run", planted["a container's argument"]},
		Env:           []corev1.EnvVar{{Name: "DB", Value: planted["a container's variable"]}},
		LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{HTTPHeaders: []corev1.HTTPHeader{{Name: "X", Value: planted["a header of a probe"]}}}}},
	}
	elsewhere := metav1.ObjectMeta{Name: "other", Namespace: "shop"}
	return fake.NewClientset(
		&corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: "here", Containers: []corev1.Container{container}, InitContainers: []corev1.Container{container}}},
		&corev1.Pod{ObjectMeta: elsewhere}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}},
		&corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"a": planted["a Secret"]}, Data: map[string][]byte{"a": []byte(planted["a Secret"])}},
		&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"a": planted["a ConfigMap"]}},
		&corev1.Event{ObjectMeta: meta, Message: "pull from https://u:" + planted["a URL's password"] + "@registry.example failed"},
	)
}

// unpack returns the files of an archive by their names below its folder.
func unpack(t *testing.T, archive io.Reader) map[string]string {
	t.Helper()
	plain, err := gzip.NewReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for reader := tar.NewReader(plain); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(path.Clean(header.Name), "/")
		found[name] = string(data)
		if header.Mode != 0o600 {
			t.Errorf("%s has the mode %o", name, header.Mode)
		}
	}
}

func TestNoSecretIsInAnArchive(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	plant(t, root)
	o := Options{Layout: up.Layout{Root: root}, Since: time.Hour, Output: "here.tar.gz", AllNamespaces: true}
	client := objects()
	parts := append(o.daemons(), part{"configuration.txt", o.configuration}, part{"failed.txt", func(context.Context) ([]byte, error) {
		return []byte("half"), errors.New("login with password=" + planted["a password"])
	}})
	for _, list := range lists {
		parts = append(parts, part{"cluster/" + list.name + ".json", func(ctx context.Context) ([]byte, error) { return o.list(ctx, client, list.read, list.namespaced) }})
	}
	var archive bytes.Buffer
	if err := write(&archive, run(t.Context(), parts), o, "here"); err != nil {
		t.Fatal(err)
	}
	found := unpack(t, &archive)
	for what, secret := range planted {
		for form, text := range map[string]string{
			"plain": secret, "base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64 for URLs": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			for name, content := range found {
				if strings.Contains(content, text) {
					t.Errorf("%s (%s) is in %s", what, form, name)
				}
			}
		}
	}
	for name, wants := range map[string][]string{
		"configuration.txt":  {"nodeName: here", "SKIFF_AGENT_LOG_LEVEL=debug", "HTTPS_PROXY=[removed]", "caHash: sha256:0011", "mirror.example"},
		"logs/agent.log":     {`msg="pod started" pod=web`, "--v=2"},
		"cluster/pods.json":  {"registry.example/web:1", `"name": "DB"`, `"nodeName": "here"`, `"other"`},
		"cluster/nodes.json": {"here"}, "cluster/events.json": {"registry.example failed"},
		"failed.txt": {"half"}, "errors.txt": {"failed.txt: login with"}, "README": {"cluster/pods.json", "here"},
	} {
		for _, want := range wants {
			if !strings.Contains(found[name], want) {
				t.Errorf("%s does not have %q:\n%s", name, want, found[name])
			}
		}
	}
}

func TestOthersNamespacesAreLeftOutUnlessAskedFor(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{true, false} {
		o := Options{AllNamespaces: all}
		i := 0
		for lists[i].name != "pods" {
			i++
		}
		data, err := o.list(t.Context(), objects(), lists[i].read, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(data), `"shop"`); got != all {
			t.Errorf("all namespaces %t: the other is there %t", all, got)
		}
	}
}

func TestAMachineWithoutAClusterHasAnArchive(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	o := Options{Layout: up.Layout{Root: root}, Since: time.Hour, Output: filepath.Join(root, "a.tar.gz")}
	parts := append(o.cluster(func(context.Context) (*join.Administrator, error) { return nil, errors.New("nobody answers") }), part{"some.txt", files("/etc/hostname", filepath.Join(root, "none"))})
	var archive bytes.Buffer
	if err := write(&archive, run(t.Context(), parts), o, "here"); err != nil {
		t.Fatal(err)
	}
	found := unpack(t, &archive)
	if !strings.Contains(found["errors.txt"], "cluster/pods.json: nobody answers") || !strings.Contains(found["some.txt"], "/etc/hostname") {
		t.Errorf("got %v", found)
	}
}
