package image

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func openRecords(t *testing.T, dir string, policy Verification, allowlist ...string) *Records {
	t.Helper()
	r, err := OpenRecords(dir, policy, allowlist, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhoMayUseAnImageThatIsPresent(t *testing.T) {
	t.Parallel()
	const name, id = "reg.example.com/team/app:1", "sha256:1"
	secret := func(uid, hash string) Credential {
		return Credential{Secret: &SecretSource{UID: uid, Namespace: "n", Name: uid, Hash: hash}}
	}
	pull := func(used *Credential) func(*Records) {
		return func(r *Records) {
			if err := r.Begin(name); err != nil {
				panic(err)
			}
			r.End(name, id, used)
		}
	}
	one := secret("a", "1")
	account := Credential{ServiceAccount: &AccountSource{UID: "u", Namespace: "n", Name: "default"}}
	for title, tc := range map[string]struct {
		policy    Verification
		allowlist []string
		before    func(*Records)
		has       []Credential
		mustPull  bool
	}{
		"somebody else brought it":                      {policy: NeverVerifyPreloadedImages},
		"it was pulled without credentials":             {policy: NeverVerifyPreloadedImages, before: pull(nil)},
		"it was pulled with the node's":                 {policy: NeverVerifyPreloadedImages, before: pull(&Credential{})},
		"a pod without credentials":                     {policy: NeverVerifyPreloadedImages, before: pull(&one), mustPull: true},
		"a pod with that secret":                        {policy: NeverVerifyPreloadedImages, before: pull(&one), has: []Credential{secret("a", "1")}},
		"a pod with the same credential elsewhere":      {policy: NeverVerifyPreloadedImages, before: pull(&one), has: []Credential{secret("b", "1")}},
		"a pod with another secret":                     {policy: NeverVerifyPreloadedImages, before: pull(&one), has: []Credential{secret("b", "2")}, mustPull: true},
		"a pod with that service account":               {policy: NeverVerifyPreloadedImages, before: pull(&account), has: []Credential{account}},
		"it is being pulled":                            {policy: NeverVerifyPreloadedImages, before: func(r *Records) { _ = r.Begin(name) }, mustPull: true},
		"the pull failed":                               {policy: NeverVerifyPreloadedImages, before: func(r *Records) { _ = r.Begin(name); r.End(name, "", nil) }},
		"verification of all: somebody else brought it": {policy: AlwaysVerify, mustPull: true},
		"verification of none":                          {policy: NeverVerify, before: pull(&one)},
		"on the list":                                   {policy: NeverVerifyAllowlistedImages, allowlist: []string{"reg.example.com/team/*"}},
		"not on the list":                               {policy: NeverVerifyAllowlistedImages, allowlist: []string{"reg.example.com/tea/*"}, mustPull: true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := openRecords(t, dir, tc.policy, tc.allowlist...)
			if tc.before != nil {
				tc.before(r)
			}
			for _, r := range []*Records{r, openRecords(t, dir, tc.policy, tc.allowlist...)} {
				got, err := r.MustPull(name, id, func() ([]Credential, error) { return tc.has, nil })
				if err != nil || got != tc.mustPull {
					t.Errorf("must pull %t, %v; want %t", got, err, tc.mustPull)
				}
			}
		})
	}
}

func TestRecordsOfImagesThatAreGoneGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRecords(t, dir, AlwaysVerify)
	for _, id := range []string{"sha256:1", "sha256:2"} {
		if err := r.Begin("app"); err != nil {
			t.Fatal(err)
		}
		r.End("app", id, nil)
	}
	r.Prune(map[string]bool{"sha256:1": true}, time.Now().Add(time.Second))
	left, err := os.ReadDir(filepath.Join(dir, "pulled"))
	if err != nil || len(left) != 1 {
		t.Errorf("%d records are left, %v", len(left), err)
	}
	if pull, err := r.MustPull("app", "sha256:2", nil); err != nil || !pull {
		t.Errorf("an image without a record: %t, %v", pull, err)
	}
}

func TestAPodProvesItsAccessToAPresentImage(t *testing.T) {
	t.Parallel()
	pulls := &fakeRuntime{}
	puller := NewPuller(Options{
		Runtime: pulls, Events: &events{}, Now: time.Now, Keyring: &Keyring{}, Records: openRecords(t, t.TempDir(), NeverVerifyPreloadedImages),
	})
	ensure := func(secrets ...*v1.Secret) error {
		_, err := puller.Ensure(t.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, &v1.Container{Image: "reg.example.com/app", ImagePullPolicy: v1.PullIfNotPresent}, secrets, nil)
		return err
	}
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", UID: "s"}, Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{
		v1.DockerConfigJsonKey: []byte(`{"auths":{"reg.example.com":{"username":"me","password":"x"}}}`),
	}}
	if err := ensure(secret); err != nil || len(pulls.users) != 1 || pulls.users[0] != "me" {
		t.Fatalf("the first pull: %v, users %q", err, pulls.users)
	}
	if err := ensure(secret); err != nil || len(pulls.users) != 1 {
		t.Errorf("with the same secret it is pulled again: %v, users %q", err, pulls.users)
	}
	pulls.err = errors.New("authorization failed")
	var failure *Failure
	if err := ensure(); !errors.As(err, &failure) || failure.Reason != "ErrImagePull" || len(pulls.users) != 2 {
		t.Errorf("without the secret: %v, users %q", err, pulls.users)
	}
}

// silent events are safe for several goroutines.
type silent struct{}

func (silent) Eventf(runtime.Object, string, string, string, ...any) {}

// slow pulls until it is told to go on.
type slow struct {
	fakeRuntime
	began chan struct{}
	goOn  chan struct{}
}

func (s *slow) PullImage(context.Context, *runtimeapi.ImageSpec, *runtimeapi.AuthConfig, *runtimeapi.PodSandboxConfig) (string, error) {
	s.began <- struct{}{}
	<-s.goOn
	return "sha256:1", nil
}

func TestPullsAreLimitedInNumberAndRate(t *testing.T) {
	t.Parallel()
	s := &slow{began: make(chan struct{}, 10), goOn: make(chan struct{})}
	s.present = true
	p := NewPuller(Options{Runtime: s, Events: silent{}, Now: time.Now, Keyring: &Keyring{}, Parallel: 2})
	done := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := p.Ensure(t.Context(), &v1.Pod{}, &v1.Container{Image: "app", ImagePullPolicy: v1.PullAlways}, nil, nil)
			done <- err
		}()
	}
	<-s.began
	<-s.began
	select {
	case <-s.began:
		t.Error("a third pull begins beside two")
	case <-time.After(50 * time.Millisecond):
	}
	close(s.goOn)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	fixed := time.Now()
	q := NewPuller(Options{Runtime: &fakeRuntime{}, Events: &events{}, Now: func() time.Time { return fixed }, Keyring: &Keyring{}, PerSecond: 1, Burst: 1})
	var errs []error
	for _, name := range []string{"a", "b"} {
		_, err := q.Ensure(t.Context(), &v1.Pod{}, &v1.Container{Image: name, ImagePullPolicy: v1.PullAlways}, nil, nil)
		errs = append(errs, err)
	}
	var failure *Failure
	if errs[0] != nil || !errors.As(errs[1], &failure) || failure.Message != "pull QPS exceeded" {
		t.Errorf("two pulls at one a second: %v", errs)
	}
}
