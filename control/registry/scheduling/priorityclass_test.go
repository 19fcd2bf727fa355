package scheduling

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/scheme"
	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/raftstore"
)

func class(name string, value int32, isDefault bool) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault, PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority)}
}

func TestValidationOfPriorityClasses(t *testing.T) {
	t.Parallel()
	const reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: "
	for name, tc := range map[string]struct {
		class *schedulingv1.PriorityClass
		want  []string
	}{
		"a user's":                        {class: class("high", 1000000000, false)},
		"a user's that is too high":       {class("high", 1000000001, false), []string{"value: Forbidden: maximum allowed value of a user defined priority is 1000000000"}},
		"the system's":                    {class: class("system-node-critical", 2000001000, false)},
		"the system's with another value": {class("system-node-critical", 1, false), []string{reserved + "value of system-node-critical PriorityClass must be 2000001000"}},
		"the system's as the default":     {class("system-node-critical", 2000001000, true), []string{reserved + "globalDefault of system-node-critical PriorityClass must be false"}},
		"a user's with the prefix":        {class("system-mine", 1, false), []string{reserved + "system-mine is not a known system priority class"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, err := range validatePriorityClass(tc.class) {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPriorityClassesDoNotChangeTheirMeaning(t *testing.T) {
	t.Parallel()
	old, changed := class("a", 1, false), class("a", 2, false)
	changed.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	want := []string{"value: Forbidden: may not be changed in an update.", `preemptionPolicy: Invalid value: "Never": field is immutable`}
	var got []string
	for _, err := range validatePriorityClassUpdate(changed, old) {
		got = append(got, err.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestOneDefaultAndTheSystemsOwnStay(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(request.WithNamespace(context.Background(), ""), time.Minute)
	t.Cleanup(cancel)
	store, err := raftstore.Open(ctx, raftstore.Options{Dir: t.TempDir(), MemberID: "one", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s, err := scheme.New()
	if err != nil {
		t.Fatal(err)
	}
	group, err := Group(&registry.Dependencies{Scheme: s, RESTOptions: &storage.Options{Store: store, Hub: cached.NewHub(store), Scheme: s.Scheme, Codecs: s.Codecs}})
	if err != nil {
		t.Fatal(err)
	}
	classes := group.Versions["v1"]["priorityclasses"]
	t.Cleanup(classes.Destroy)
	create := func(c *schedulingv1.PriorityClass) error {
		_, err := classes.(rest.Creater).Create(ctx, c, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
		return err
	}
	for _, c := range []*schedulingv1.PriorityClass{class("system-node-critical", 2000001000, false), class("usual", 10, true), class("high", 20, false)} {
		if err := create(c); err != nil {
			t.Fatal(err)
		}
	}
	err = create(class("other", 30, true))
	if want := `priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass usual is already marked as default. Only one default can exist`; err == nil || err.Error() != want {
		t.Errorf("a second default gives %v, want %s", err, want)
	}
	remove := func(name string) error {
		_, _, err := classes.(rest.GracefulDeleter).Delete(ctx, name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
		return err
	}
	if err := remove("system-node-critical"); !apierrors.IsForbidden(err) {
		t.Errorf("deletion of a system class gives %v, want 403", err)
	}
	if err := remove("usual"); err != nil {
		t.Error(err)
	}
	if err := create(class("other", 30, true)); err != nil {
		t.Errorf("a default after the first is gone gives %v", err)
	}
}
