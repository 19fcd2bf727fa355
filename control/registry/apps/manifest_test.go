package apps

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

const (
	podTemplate = "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'nginx:1.25'}]}}"
	good        = "selector: {matchLabels: {app: web}}, " + podTemplate
)

// deployment returns a Deployment with the spec as the API server sees it: defaults set.
func deployment(t *testing.T, spec string) *appsv1.Deployment {
	t.Helper()
	d := &appsv1.Deployment{}
	text := "{metadata: {name: web, namespace: default, uid: '1', resourceVersion: '1'}, spec: {" + spec + "}}"
	if err := yaml.UnmarshalStrict([]byte(text), d); err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	defaultDeployment(d)
	return d
}

func messages(errs field.ErrorList) []string {
	var list []string
	for _, err := range errs {
		list = append(list, err.Error())
	}
	return list
}
