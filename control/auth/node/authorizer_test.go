package node

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-run/skiff/control/auth/rbac"
)

func TestANodeIsConfinedToItself(t *testing.T) {
	t.Parallel()
	own := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.PodSpec{
		ServiceAccountName: "robot",
		ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "registry"}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "password"}},
		}}}}},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "part"}}},
			}}}},
			{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
		},
	}}
	mirror := own.DeepCopy()
	mirror.Name, mirror.Spec.ImagePullSecrets = "static", []corev1.LocalObjectReference{{Name: "stolen"}}
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	pods := func(node string) []*corev1.Pod {
		if node == "a" {
			return []*corev1.Pod{own, mirror}
		}
		return nil
	}
	rules := []rbacv1.PolicyRule{
		{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{""}, Resources: []string{"services", "pods"}},
		{Verbs: []string{"update", "patch"}, APIGroups: []string{""}, Resources: []string{"pods/status"}},
		{Verbs: []string{"create", "update", "patch"}, APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}},
	}
	bound := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
		CSI: &corev1.CSIPersistentVolumeSource{NodeStageSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "key"}},
	}}}
	volumes := Volumes{
		OfClaim: func(namespace, claim string) []*corev1.PersistentVolume {
			if namespace == "default" && (claim == "data" || claim == "web-scratch") {
				return []*corev1.PersistentVolume{bound}
			}
			return nil
		},
		Volume: func(name string) *corev1.PersistentVolume {
			return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"skiff.dev/node": strings.TrimPrefix(name, "dir-of-")}}}
		},
		Attachment: func(name string) *storagev1.VolumeAttachment {
			return &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{NodeName: strings.TrimPrefix(name, "to-")}}
		},
	}
	a := New(pods, volumes, rules, rbac.RulesAllow)
	request := func(verb, resource, name string, more ...func(*authorizer.AttributesRecord)) authorizer.AttributesRecord {
		r := authorizer.AttributesRecord{Verb: verb, Resource: resource, Name: name, Namespace: "default", ResourceRequest: true}
		for _, change := range more {
			change(&r)
		}
		return r
	}
	sub := func(name string) func(*authorizer.AttributesRecord) {
		return func(r *authorizer.AttributesRecord) { r.Subresource = name }
	}
	lease := func(namespace string) func(*authorizer.AttributesRecord) {
		return func(r *authorizer.AttributesRecord) { r.APIGroup, r.Namespace = "coordination.k8s.io", namespace }
	}
	mine := func(r *authorizer.AttributesRecord) {
		r.FieldSelectorRequirements = fields.Requirements{{Field: "spec.nodeName", Operator: "=", Value: "a"}}
	}
	storage := func(r *authorizer.AttributesRecord) { r.APIGroup = "storage.k8s.io" }
	labelled := func(selector string) func(*authorizer.AttributesRecord) {
		parsed, err := labels.Parse(selector)
		if err != nil {
			t.Fatal(err)
		}
		requirements, _ := parsed.Requirements()
		return func(r *authorizer.AttributesRecord) { r.LabelSelectorRequirements = requirements }
	}
	for name, tc := range map[string]struct {
		request authorizer.AttributesRecord
		allowed bool
	}{
		"a pull secret of its pod":         {request("get", "secrets", "registry"), true},
		"a secret in a variable":           {request("get", "secrets", "password"), true},
		"a secret in a projected volume":   {request("watch", "secrets", "part"), true},
		"another secret":                   {request("get", "secrets", "other"), false},
		"all secrets":                      {request("list", "secrets", ""), false},
		"a secret named by a mirror pod":   {request("get", "secrets", "stolen"), false},
		"that secret in another namespace": {request("get", "secrets", "registry", func(r *authorizer.AttributesRecord) { r.Namespace = "kube-system" }), false},
		"writing its own secret":           {request("update", "secrets", "registry"), false},
		"a config map of its pod":          {request("get", "configmaps", "settings"), true},
		"a token for its pod's account":    {request("create", "serviceaccounts", "robot", sub("token")), true},
		"a token for another account":      {request("create", "serviceaccounts", "admin", sub("token")), false},
		"its own pod":                      {request("get", "pods", "web"), true},
		"another pod":                      {request("get", "pods", "db"), false},
		"all pods":                         {request("list", "pods", ""), false},
		"the pods on it":                   {request("watch", "pods", "", mine), true},
		"a pod's status":                   {request("patch", "pods", "web", sub("status")), true},
		"its own lease":                    {request("update", "leases", "a", lease("kube-node-lease")), true},
		"another's lease":                  {request("update", "leases", "b", lease("kube-node-lease")), false},
		"a lease elsewhere":                {request("update", "leases", "a", lease("kube-system")), false},
		"its own node's status":            {request("patch", "nodes", "a", sub("status")), true},
		"another node":                     {request("patch", "nodes", "b"), false},
		"services":                         {request("list", "services", ""), true},
		"a claim of its pod":               {request("get", "persistentvolumeclaims", "data"), true},
		"a claim made for its pod":         {request("get", "persistentvolumeclaims", "web-scratch"), true},
		"the status of its pod's claim":    {request("patch", "persistentvolumeclaims", "data", sub("status")), true},
		"another claim":                    {request("get", "persistentvolumeclaims", "other"), false},
		"a volume of its pod":              {request("get", "persistentvolumes", "disk"), true},
		"changing a volume of its pod":     {request("update", "persistentvolumes", "disk"), false},
		"another volume":                   {request("get", "persistentvolumes", "tape"), false},
		"a secret of its pod's volume":     {request("get", "secrets", "key", func(r *authorizer.AttributesRecord) { r.Namespace = "storage" }), true},
		"a directory of its own":           {request("patch", "persistentvolumes", "dir-of-a"), true},
		"a directory of another node":      {request("patch", "persistentvolumes", "dir-of-b"), false},
		"all volumes":                      {request("list", "persistentvolumes", ""), false},
		"the directories of its own":       {request("watch", "persistentvolumes", "", labelled("skiff.dev/node=a")), true},
		"the directories of another node":  {request("watch", "persistentvolumes", "", labelled("skiff.dev/node=b")), false},
		"an attachment to it":              {request("get", "volumeattachments", "to-a", storage), true},
		"an attachment to another":         {request("get", "volumeattachments", "to-b", storage), false},
		"its own CSINode":                  {request("update", "csinodes", "a", storage), true},
		"another's CSINode":                {request("update", "csinodes", "b", storage), false},
		"deployments":                      {request("list", "deployments", ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			tc.request.User = &user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:nodes"}}
			decision, why, err := a.Authorize(t.Context(), tc.request)
			if err != nil || (decision == authorizer.DecisionAllow) != tc.allowed {
				t.Errorf("got %v (%s) %v, want allowed %v", decision, why, err, tc.allowed)
			}
			tc.request.User = &user.DefaultInfo{Name: "system:node:a"}
			if decision, _, _ := a.Authorize(t.Context(), tc.request); decision != authorizer.DecisionNoOpinion {
				t.Error("a user without the group system:nodes is taken for a node")
			}
		})
	}
}
