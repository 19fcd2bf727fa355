package storage

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/scheme"
	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/raftstore"
)

func messages(errs field.ErrorList) []string {
	var list []string
	for _, err := range errs {
		list = append(list, err.Error())
	}
	return list
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	class := func(change func(*storagev1.StorageClass)) *storagev1.StorageClass {
		c := &storagev1.StorageClass{Provisioner: "example.com/disk"}
		storageClassKind().Default(c)
		change(c)
		return c
	}
	driver := func(change func(*storagev1.CSIDriverSpec)) *storagev1.CSIDriverSpec {
		d := &storagev1.CSIDriver{}
		defaultDriver(d)
		change(&d.Spec)
		return &d.Spec
	}
	attachment := func(change func(*storagev1.VolumeAttachment)) *storagev1.VolumeAttachment {
		a := &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "example.com", NodeName: "n1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")}}}
		change(a)
		return a
	}
	for name, tc := range map[string]struct{ got, want []string }{
		"a class": {messages(validateClass(class(func(*storagev1.StorageClass) {}))), nil},
		"a class without a provisioner": {messages(validateClass(class(func(c *storagev1.StorageClass) { c.Provisioner = "" }))),
			[]string{"provisioner: Required value"}},
		"a class that recycles": {messages(validateClass(class(func(c *storagev1.StorageClass) { c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRecycle) }))),
			[]string{`reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`}},
		"a class of an unknown mode": {messages(validateClass(class(func(c *storagev1.StorageClass) { c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingMode("Soon")) }))),
			[]string{`volumeBindingMode: Unsupported value: "Soon": supported values: "Immediate", "WaitForFirstConsumer"`}},
		"a class whose provisioner changes": {messages(validateClassUpdate(class(func(c *storagev1.StorageClass) { c.Provisioner = "b.com/x" }), class(func(*storagev1.StorageClass) {}))),
			[]string{`provisioner: Invalid value: "b.com/x": field is immutable`}},
		"a driver": {messages(validateDriver(driver(func(*storagev1.CSIDriverSpec) {}), field.NewPath("spec"))), nil},
		"a driver with two tokens for one audience": {messages(validateDriver(driver(func(s *storagev1.CSIDriverSpec) {
			s.TokenRequests = []storagev1.TokenRequest{{Audience: "a"}, {Audience: "a"}}
		}), field.NewPath("spec"))), []string{`spec.tokenRequests[1].audience: Duplicate value: "a"`}},
		"a node's driver without a name there": {messages(validateNodeDrivers([]storagev1.CSINodeDriver{{Name: "d.example.com"}}, field.NewPath("spec", "drivers"))),
			[]string{"spec.drivers[0].nodeID: Required value"}},
		"an attachment": {messages(validateAttachment(attachment(func(*storagev1.VolumeAttachment) {}))), nil},
		"an attachment of nothing": {messages(validateAttachment(attachment(func(a *storagev1.VolumeAttachment) { a.Spec.Source.PersistentVolumeName = nil }))),
			[]string{"spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"}},
		"an inline attachment that is no CSI volume": {messages(validateAttachment(attachment(func(a *storagev1.VolumeAttachment) {
			a.Spec.Source = storagev1.VolumeAttachmentSource{InlineVolumeSpec: &corev1.PersistentVolumeSpec{
				AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}},
			}}
		}))), []string{"spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes"}},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheNewestMarkedClassIsTheDefault(t *testing.T) {
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
	for _, each := range group.Versions["v1"] {
		t.Cleanup(each.Destroy)
	}
	now := time.Now()
	at := func(name string, age time.Duration, marked string) storagev1.StorageClass {
		return storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{
			Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age)), Annotations: map[string]string{isDefaultAnnotation: marked},
		}, Provisioner: "example.com/disk"}
	}
	list := &storagev1.StorageClassList{Items: []storagev1.StorageClass{
		at("old", time.Hour, "true"), at("b", time.Minute, "true"), at("a", time.Minute, "true"), at("unmarked", time.Second, "false"),
	}}
	classes := group.Versions["v1"]["storageclasses"].(rest.TableConvertor)
	table, err := classes.ConvertToTable(ctx, list, &metav1.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []any
	for _, row := range table.Rows {
		names = append(names, row.Cells[0])
	}
	if diff := cmp.Diff([]any{"old", "b", "a (default)", "unmarked"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}
