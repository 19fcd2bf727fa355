package environ

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-run/skiff/agent/downward"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"A": "1", "EMPTY": ""}
	lookup := func(n string) (string, bool) { v, ok := values[n]; return v, ok }
	for text, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(A)": "x1y1", "$(NONE)": "$(NONE)", "$$(A)": "$(A)", "$$$(A)": "$1", "$(EMPTY)": "", "$A": "$A",
		"$(A": "$(A", "a$": "a$", "$$": "$", "no": "no", "$(": "$(", "$()": "$()",
	} {
		if got := Expand(text, lookup); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

type objects struct{}

func (objects) ConfigMap(_, name string) (*v1.ConfigMap, error) {
	if name != "c" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &v1.ConfigMap{Data: map[string]string{"k": "from-config", "b": "two"}}, nil
}

func (objects) Secret(_, name string) (*v1.Secret, error) {
	if name != "s" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return &v1.Secret{Data: map[string][]byte{"p": []byte("hush")}}, nil
}

func ref(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

func TestMake(t *testing.T) {
	t.Parallel()
	yes := true
	service := &v1.Service{}
	service.Name, service.Namespace = "my-db", "ns"
	service.Spec = v1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []v1.ServicePort{{Name: "sql", Port: 5432}}}
	for name, test := range map[string]struct {
		container v1.Container
		services  []*v1.Service
		want      string
		err       string
	}{
		"values expand what was defined before": {
			container: v1.Container{Env: []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2"}, {Name: "C", Value: "$(D)"}, {Name: "D", Value: "x"}}},
			want:      "A=1 B=12 C=$(D) D=x",
		},
		"env wins over envFrom, which fills in the rest": {
			container: v1.Container{EnvFrom: []v1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("c")}}}, Env: []v1.EnvVar{{Name: "P_k", Value: "mine"}}},
			want:      "P_k=mine P_b=two",
		},
		"keys of config maps and secrets": {
			container: v1.Container{Env: []v1.EnvVar{
				{Name: "K", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("c"), Key: "k"}}},
				{Name: "S", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "p"}}},
			}},
			want: "K=from-config S=hush",
		},
		"a missing key is an error": {
			container: v1.Container{Env: []v1.EnvVar{{Name: "K", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("c"), Key: "no"}}}}},
			err:       "couldn't find key no in ConfigMap ns/c",
		},
		"a missing object is an error": {
			container: v1.Container{EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("no")}}}},
			err:       `secrets "no" not found`,
		},
		"what is optional may be missing": {
			container: v1.Container{
				EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("no"), Optional: &yes}}},
				Env:     []v1.EnvVar{{Name: "K", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref("c"), Key: "no", Optional: &yes}}}},
			},
		},
		"fields and resources of the pod": {
			container: v1.Container{Name: "c", Resources: v1.ResourceRequirements{Limits: v1.ResourceList{"cpu": resource.MustParse("1500m")}}, Env: []v1.EnvVar{
				{Name: "IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "L", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}},
				{Name: "CPU", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}}},
				{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			}},
			want: "IP=10.0.0.1 L=web CPU=2 MEM=64",
		},
		"services are told by the names of old": {
			services: []*v1.Service{service},
			want: "MY_DB_PORT=tcp://10.96.0.9:5432 MY_DB_PORT_5432_TCP=tcp://10.96.0.9:5432 MY_DB_PORT_5432_TCP_ADDR=10.96.0.9 MY_DB_PORT_5432_TCP_PORT=5432 " +
				"MY_DB_PORT_5432_TCP_PROTO=tcp MY_DB_SERVICE_HOST=10.96.0.9 MY_DB_SERVICE_PORT=5432 MY_DB_SERVICE_PORT_SQL=5432",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &v1.Pod{}
			pod.Namespace, pod.Labels = "ns", map[string]string{"app": "web"}
			vars, err := Make(Input{
				Pod: pod, Container: &test.container, Objects: objects{}, Services: test.services,
				Addresses: downward.Addresses{PodIPs: []string{"10.0.0.1"}}, Allocatable: v1.ResourceList{"memory": resource.MustParse("64Mi")},
			})
			if (err == nil) != (test.err == "") || (err != nil && err.Error() != test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			var got []string
			for _, v := range vars {
				got = append(got, v.Name+"="+v.Value)
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), test.want)
			}
		})
	}
}

func TestServiceLinksCanBeSwitchedOffButNotTheAPI(t *testing.T) {
	t.Parallel()
	no := false
	pod := &v1.Pod{Spec: v1.PodSpec{EnableServiceLinks: &no}}
	pod.Namespace = "ns"
	service := func(namespace, name string) *v1.Service {
		s := &v1.Service{Spec: v1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []v1.ServicePort{{Port: 443}}}}
		s.Namespace, s.Name = namespace, name
		return s
	}
	var names []string
	for _, s := range VisibleServices(pod, []*v1.Service{service("ns", "a"), service("default", "kubernetes"), service("other", "b")}) {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"kubernetes"}) {
		t.Errorf("visible: %q", names)
	}
}
