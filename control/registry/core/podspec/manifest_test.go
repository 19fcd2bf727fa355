package podspec

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// smallest is the pod the tests start from.
const smallest = `
metadata: {name: web, namespace: default}
spec: {containers: [{name: c, image: "nginx:1.25"}]}
`

// manifest returns the smallest pod with changes merged into it, as the API server sees it:
// defaults set.
func manifest(t *testing.T, changes ...string) *corev1.Pod {
	t.Helper()
	document := map[string]any{}
	for _, text := range append([]string{smallest}, changes...) {
		change := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &change); err != nil {
			t.Fatalf("parse %s: %v", text, err)
		}
		merge(document, change)
	}
	text, err := yaml.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(text, pod); err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	SetPodDefaults(pod)
	return pod
}

// created returns a pod as it is stored after its creation.
func created(t *testing.T, changes ...string) *corev1.Pod {
	t.Helper()
	pod := manifest(t, changes...)
	PrepareForCreate(pod, metav1.Time{})
	if errs := ValidatePod(pod); len(errs) > 0 {
		t.Fatalf("the pod to start from is invalid: %v", errs.ToAggregate())
	}
	pod.UID, pod.ResourceVersion = "1", "1"
	return pod
}

// merge changes a document as a JSON merge patch does: null deletes, maps merge, the rest replaces.
func merge(document, change map[string]any) {
	for key, value := range change {
		into, isMap := document[key].(map[string]any)
		more, mergeable := value.(map[string]any)
		switch {
		case value == nil:
			delete(document, key)
		case isMap && mergeable:
			copied := maps.Clone(into)
			merge(copied, more)
			document[key] = copied
		default:
			document[key] = value
		}
	}
}

func messages(errs field.ErrorList) []string {
	var list []string
	for _, err := range errs {
		list = append(list, err.Error())
	}
	return list
}
