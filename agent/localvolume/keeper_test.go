package localvolume

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

func TestTheLifeOfADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "volumes", "pvc-1")
	now := metav1.Now()
	volume := func(change func(*v1.PersistentVolume)) *v1.PersistentVolume {
		v := &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Labels: map[string]string{nodeLabel: "n1"}, Finalizers: []string{"kubernetes.io/pv-protection", finalizer}},
			Spec: v1.PersistentVolumeSpec{
				PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
				PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			},
		}
		change(v)
		return v
	}
	deleted := func(v *v1.PersistentVolume) { v.DeletionTimestamp, v.Finalizers = &now, []string{finalizer} }
	for _, step := range []struct {
		what         string
		volume       *v1.PersistentVolume
		there, fails bool
		released     bool
	}{
		{"another node's", volume(func(v *v1.PersistentVolume) { v.Labels[nodeLabel] = "n2" }), false, false, false},
		{"one that is elsewhere", volume(func(v *v1.PersistentVolume) { v.Spec.Local.Path = "/etc" }), false, true, false},
		{"a new one", volume(func(*v1.PersistentVolume) {}), true, false, false},
		{"the same after a restart", volume(func(*v1.PersistentVolume) {}), true, false, false},
		{"a deleted one that is bound", volume(func(v *v1.PersistentVolume) { v.DeletionTimestamp = &now }), true, false, false},
		{"a deleted one that was moved", volume(func(v *v1.PersistentVolume) { deleted(v); v.Spec.Local.Path = "/etc" }), true, true, false},
		{"a deleted one that is to be kept", volume(func(v *v1.PersistentVolume) {
			deleted(v)
			v.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
		}), true, false, true},
		{"a deleted one", volume(deleted), false, false, true},
		{"the same after a crash", volume(deleted), false, false, true},
	} {
		client := fake.NewClientset(step.volume)
		store := cache.NewStore(cache.MetaNamespaceKeyFunc)
		if err := store.Add(step.volume); err != nil {
			t.Fatal(err)
		}
		k := &Keeper{Client: client, Node: "n1", Dir: filepath.Dir(path), Logger: slog.New(slog.DiscardHandler)}
		if err := k.sync(t.Context(), store, "pvc-1"); (err != nil) != step.fails {
			t.Errorf("%s: error %v", step.what, err)
		}
		info, err := os.Stat(path)
		if (err == nil) != step.there {
			t.Errorf("%s: the directory is there: %v, want %v", step.what, err == nil, step.there)
		}
		if err == nil && info.Mode().Perm() != 0o777 {
			t.Errorf("%s: mode %v", step.what, info.Mode())
		}
		after, err := client.CoreV1().PersistentVolumes().Get(context.Background(), "pvc-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if (len(after.Finalizers) == 0) != step.released {
			t.Errorf("%s: finalizers %v", step.what, after.Finalizers)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) > 0 {
		t.Errorf("remains %v, %v", left, err)
	}
}
