package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type fakeRuntime struct {
	present bool
	err     error
	users   []string
}

func (f *fakeRuntime) ImageStatus(context.Context, *runtimeapi.ImageSpec, bool) (*runtimeapi.ImageStatusResponse, error) {
	if !f.present {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:1", Size: 2048}}, nil
}

func (f *fakeRuntime) PullImage(_ context.Context, _ *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	f.users = append(f.users, auth.GetUsername())
	if f.err == nil {
		f.present = true
	}
	return "sha256:1", f.err
}

type events struct{ lines []string }

func (e *events) Eventf(_ runtime.Object, _, reason, format string, args ...any) {
	e.lines = append(e.lines, reason+" "+fmt.Sprintf(format, args...))
}

func TestEnsure(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		image   string
		policy  v1.PullPolicy
		runtime fakeRuntime
		reason  string
		events  []string
	}{
		"a present image is not pulled": {"nginx", v1.PullIfNotPresent, fakeRuntime{present: true}, "", []string{`Pulled Container image "nginx" already present on machine and can be accessed by the pod`}},
		"a missing image is pulled": {"nginx", v1.PullIfNotPresent, fakeRuntime{}, "", []string{`Pulling Pulling image "nginx"`,
			`Pulled Successfully pulled image "nginx" in 0s (0s including waiting). Image size: 2048 bytes.`}},
		"policy Always pulls again": {"nginx", v1.PullAlways, fakeRuntime{present: true}, "", []string{`Pulling Pulling image "nginx"`,
			`Pulled Successfully pulled image "nginx" in 0s (0s including waiting). Image size: 2048 bytes.`}},
		"policy Never does not pull": {"nginx", v1.PullNever, fakeRuntime{}, "ErrImageNeverPull", []string{`ErrImageNeverPull Container image "nginx" is not present with pull policy of Never`}},
		"a name that is none":        {"NOT:::A", v1.PullAlways, fakeRuntime{}, "InvalidImageName", []string{`InspectFailed Failed to apply default image tag "NOT:::A": couldn't parse image reference "NOT:::A": invalid reference format: repository name (library/NOT) must be lowercase`}},
		"a failing pull": {"nginx", v1.PullAlways, fakeRuntime{err: errors.New("no route")}, "ErrImagePull", []string{`Pulling Pulling image "nginx"`,
			`Failed Failed to pull image "nginx": no route`, "Failed Error: ErrImagePull"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &events{}
			fixed := time.Now()
			p := NewPuller(Options{Runtime: &test.runtime, Events: log, Now: func() time.Time { return fixed }, Keyring: &Keyring{}})
			_, err := p.Ensure(t.Context(), &v1.Pod{}, &v1.Container{Name: "c", Image: test.image, ImagePullPolicy: test.policy}, nil, nil)
			var failure *Failure
			reason := ""
			if errors.As(err, &failure) {
				reason = failure.Reason
			}
			if reason != test.reason || !slices.Equal(log.lines, test.events) {
				t.Errorf("reason %q, events\n%q\nwant %q\n%q", reason, log.lines, test.reason, test.events)
			}
		})
	}
}

func TestPullsBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &fakeRuntime{err: errors.New("no route")}
		p := NewPuller(Options{Runtime: r, Events: &events{}, Now: time.Now, Keyring: &Keyring{}})
		var pulls []time.Duration
		began := time.Now()
		for time.Since(began) < 3*time.Minute {
			before := len(r.users)
			_, err := p.Ensure(t.Context(), &v1.Pod{}, &v1.Container{Image: "nginx"}, nil, nil)
			if len(r.users) > before {
				pulls = append(pulls, time.Since(began))
			}
			var failure *Failure
			if !errors.As(err, &failure) {
				t.Fatal(err)
			}
			time.Sleep(time.Until(failure.RetryAt))
		}
		s := time.Second
		if want := []time.Duration{0, 10 * s, 30 * s, 70 * s, 150 * s}; !slices.Equal(pulls, want) {
			t.Errorf("pulls at %v, want %v", pulls, want)
		}
	})
}

func TestCredentialsAreChosenByRegistryAndPath(t *testing.T) {
	t.Parallel()
	secret := func(config string) *v1.Secret {
		return &v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(config)}}
	}
	secrets := []*v1.Secret{
		secret(`{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"*.example.com":{"username":"wild"},"reg.example.com/team":{"username":"team"}}}`),
		secret(`broken`),
	}
	for image, want := range map[string][]string{
		"nginx": {"hub"}, "reg.example.com/team/app:1": {"team", "wild"}, "reg.example.com/other": {"wild"}, "quay.io/x": nil,
	} {
		list, err := (&Keyring{}).Lookup(t.Context(), &v1.Pod{}, secrets, image)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list {
			got = append(got, c.Auth.GetUsername())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestExcess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ capacity, available, want uint64 }{{100, 50, 0}, {100, 16, 0}, {100, 15, 5}, {100, 0, 20}, {0, 0, 0}} {
		if got := Excess(test.capacity, test.available, Policy{High: 85, Low: 80}); got != test.want {
			t.Errorf("%d of %d available: %d to free, want %d", test.available, test.capacity, got, test.want)
		}
	}
}

func TestTheNodesOwnCredentialsComeAfterThePods(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.json")
	for file, text := range map[string]string{good: `{"auths":{"reg.example.com":{"username":"node"}}}`, bad: "no JSON"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := &Keyring{Files: []string{bad, filepath.Join(dir, "none.json"), good}, Logger: slog.New(slog.DiscardHandler)}
	secret := &v1.Secret{Type: v1.SecretTypeDockercfg, Data: map[string][]byte{v1.DockerConfigKey: []byte(`{"reg.example.com":{"username":"pod"}}`)}}
	list, err := k.Lookup(t.Context(), &v1.Pod{}, []*v1.Secret{secret}, "reg.example.com/app")
	if err != nil || len(list) != 2 || list[0].Auth.GetUsername() != "pod" || list[0].Secret == nil || list[1].Auth.GetUsername() != "node" || list[1].Secret != nil {
		t.Errorf("credentials %+v, %v", list, err)
	}
}
