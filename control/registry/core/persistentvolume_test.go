package core

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

func persistentVolume(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
	}}
	defaultPersistentVolume(v)
	change(v)
	return v
}

func claim(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	defaultClaim(c)
	change(c)
	return c
}

// TestVolumesAndClaimsThatAreRefused compares the first line of each error.
func TestVolumesAndClaimsThatAreRefused(t *testing.T) {
	t.Parallel()
	same := func(*corev1.PersistentVolumeClaim) {}
	size := func(amount string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(amount)
		}
	}
	bound := func(size func(*corev1.PersistentVolumeClaim)) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			size(c)
			c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}
		}
	}
	const fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
	for name, tc := range map[string]struct {
		errs field.ErrorList
		want []string
	}{
		"a volume": {validatePersistentVolume(persistentVolume(func(*corev1.PersistentVolume) {})), nil},
		"a volume of no kind": {validatePersistentVolume(persistentVolume(func(v *corev1.PersistentVolume) { v.Spec.HostPath = nil })),
			[]string{"spec: Required value: must specify a volume type"}},
		"a volume of two kinds": {validatePersistentVolume(persistentVolume(func(v *corev1.PersistentVolume) { v.Spec.NFS = &corev1.NFSVolumeSource{Server: "s", Path: "/"} })),
			[]string{"spec.nfs: Forbidden: may not specify more than 1 volume type"}},
		"a volume without size": {validatePersistentVolume(persistentVolume(func(v *corev1.PersistentVolume) { v.Spec.Capacity = nil })),
			[]string{"spec.capacity: Required value", `spec.capacity: Unsupported value: null: supported values: "storage"`}},
		"a local volume that is everywhere": {validatePersistentVolume(persistentVolume(func(v *corev1.PersistentVolume) {
			v.Spec.HostPath, v.Spec.Local = nil, &corev1.LocalVolumeSource{Path: "/data"}
		})), []string{"spec.nodeAffinity: Required value: Local volume requires node affinity"}},
		"a path with backsteps": {validatePersistentVolume(persistentVolume(func(v *corev1.PersistentVolume) { v.Spec.HostPath.Path = "/a/../b" })),
			[]string{`spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'`}},
		"a volume of one pod and of many": {validatePersistentVolume(persistentVolume(func(v *corev1.PersistentVolume) {
			v.Spec.AccessModes = append(v.Spec.AccessModes, corev1.ReadWriteOncePod)
		})), []string{"spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"}},
		"a volume that moves": {validatePersistentVolumeUpdate(persistentVolume(func(v *corev1.PersistentVolume) { v.Spec.HostPath.Path = "/other" }), persistentVolume(func(*corev1.PersistentVolume) {})),
			[]string{"spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"}},
		"a claim": {podspec.ValidateClaimSpec(&claim(same).Spec, field.NewPath("spec")), nil},
		"a claim of nothing": {podspec.ValidateClaimSpec(&claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = nil }).Spec, field.NewPath("spec")),
			[]string{"spec.resources[storage]: Required value"}},
		"a claim that names its volume": {validateClaimUpdate(claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }), claim(same)), nil},
		"a claim that names another": {validateClaimUpdate(claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "w" }), claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" })),
			[]string{fixed}},
		"a claim that gets its class": {validateClaimUpdate(claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("fast") }), claim(same)), nil},
		"a claim that changes its class": {validateClaimUpdate(claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("fast") }),
			claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("slow") })), []string{fixed}},
		"an unbound claim that grows": {validateClaimUpdate(claim(size("2Gi")), claim(same)), []string{fixed}},
		"a bound claim that grows":    {validateClaimUpdate(claim(bound(size("2Gi"))), claim(bound(size("1Gi")))), nil},
		"a bound claim that shrinks": {validateClaimUpdate(claim(bound(size("1Mi"))), claim(bound(size("1Gi")))),
			[]string{"spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"}},
	} {
		var got []string
		for _, err := range tc.errs {
			line, _, _ := strings.Cut(err.Error(), "\n")
			got = append(got, line)
		}
		if strings.Join(got, "; ") != strings.Join(tc.want, "; ") {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestAVolumesPhaseIsDated(t *testing.T) {
	t.Parallel()
	old := persistentVolume(func(*corev1.PersistentVolume) {})
	then := metav1.Unix(1, 0)
	old.Status.LastPhaseTransitionTime = &then
	same, bound := old.DeepCopy(), old.DeepCopy()
	bound.Status.Phase = corev1.VolumeBound
	notePhaseTransition(same, old)
	notePhaseTransition(bound, old)
	if !same.Status.LastPhaseTransitionTime.Equal(&then) || !bound.Status.LastPhaseTransitionTime.After(then.Time) {
		t.Errorf("times %v and %v", same.Status.LastPhaseTransitionTime, bound.Status.LastPhaseTransitionTime)
	}
}

func TestAClaimsTwoSourcesSayTheSame(t *testing.T) {
	t.Parallel()
	spec := corev1.PersistentVolumeClaimSpec{DataSource: &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "a"}}
	dropUnknownSource(&spec, nil)
	joinSources(&spec)
	if spec.DataSourceRef == nil || spec.DataSourceRef.Name != "a" {
		t.Errorf("dataSourceRef is %v", spec.DataSourceRef)
	}
	spec = corev1.PersistentVolumeClaimSpec{DataSource: &corev1.TypedLocalObjectReference{Kind: "Pod", Name: "a"}}
	if dropUnknownSource(&spec, nil); spec.DataSource != nil {
		t.Error("a source of another kind was kept")
	}
}
