package environ

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-run/skiff/agent/downward"
)

// Var is one environment variable.
type Var struct{ Name, Value string }

// Objects reads what variables refer to.
type Objects interface {
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
}

// Files reads a key of an env file in a volume of the pod (fileKeyRef).
type Files interface {
	VolumePath(volume string) (string, bool)
}

// Input is what a container's environment is made from.
type Input struct {
	Pod       *v1.Pod
	Container *v1.Container
	Objects   Objects
	Files     Files
	// Services visible to the pod, see VisibleServices.
	Services    []*v1.Service
	Addresses   downward.Addresses
	Allocatable v1.ResourceList
}

// Make returns the variables, or an error that names what is missing: the
// container then waits with CreateContainerConfigError.
func Make(in Input) ([]Var, error) {
	b := builder{Input: in, from: map[string]string{}, values: map[string]string{}, services: fromServices(in.Services)}
	for i := range in.Container.EnvFrom {
		if err := b.envFrom(&in.Container.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	var vars []Var
	index := map[string]int{}
	for i := range in.Container.Env {
		e := &in.Container.Env[i]
		value, set, err := b.env(e)
		if err != nil {
			return nil, err
		}
		if !set {
			continue
		}
		b.values[e.Name] = value
		if at, again := index[e.Name]; again {
			// The last of several definitions wins, at its own place.
			vars = slices.Delete(vars, at, at+1)
			for name, n := range index {
				if n > at {
					index[name] = n - 1
				}
			}
		}
		index[e.Name] = len(vars)
		vars = append(vars, Var{e.Name, value})
	}
	for _, name := range slices.Sorted(maps.Keys(b.from)) {
		if _, own := b.values[name]; !own {
			b.values[name] = b.from[name]
			vars = append(vars, Var{name, b.from[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.services)) {
		if _, own := b.values[name]; !own {
			vars = append(vars, Var{name, b.services[name]})
		}
	}
	return vars, nil
}

type builder struct {
	Input
	// from holds what envFrom brought, values what is decided, services the service variables.
	from, values, services map[string]string
}

func (b *builder) lookup(name string) (string, bool) {
	for _, m := range []map[string]string{b.values, b.from, b.services} {
		if v, ok := m[name]; ok {
			return v, true
		}
	}
	return "", false
}

func (b *builder) envFrom(source *v1.EnvFromSource) error {
	switch {
	case source.ConfigMapRef != nil:
		object, err := b.Objects.ConfigMap(b.Pod.Namespace, source.ConfigMapRef.Name)
		if err != nil {
			return missing(err, source.ConfigMapRef.Optional)
		}
		for k, v := range object.Data {
			b.from[source.Prefix+k] = v
		}
	case source.SecretRef != nil:
		object, err := b.Objects.Secret(b.Pod.Namespace, source.SecretRef.Name)
		if err != nil {
			return missing(err, source.SecretRef.Optional)
		}
		for k, v := range object.Data {
			b.from[source.Prefix+k] = string(v)
		}
	}
	return nil
}

// env returns the value of one variable; set is false for an optional
// reference to something that does not exist.
func (b *builder) env(e *v1.EnvVar) (value string, set bool, err error) {
	if e.Value != "" || e.ValueFrom == nil {
		return Expand(e.Value, b.lookup), true, nil
	}
	switch from := e.ValueFrom; {
	case from.FieldRef != nil:
		value, err = downward.Field(b.Pod, from.FieldRef.FieldPath, b.Addresses)
		return value, true, err
	case from.ResourceFieldRef != nil:
		container := b.Container
		if name := from.ResourceFieldRef.ContainerName; name != "" && name != container.Name {
			if container = containerNamed(b.Pod, name); container == nil {
				return "", false, fmt.Errorf("container %q not found", name)
			}
		}
		value, err = downward.Resource(container, from.ResourceFieldRef, b.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		object, err := b.Objects.ConfigMap(b.Pod.Namespace, ref.Name)
		if err != nil {
			return "", false, missing(err, ref.Optional)
		}
		if value, ok := object.Data[ref.Key]; ok {
			return value, true, nil
		}
		if ref.Optional != nil && *ref.Optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, b.Pod.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		object, err := b.Objects.Secret(b.Pod.Namespace, ref.Name)
		if err != nil {
			return "", false, missing(err, ref.Optional)
		}
		if value, ok := object.Data[ref.Key]; ok {
			return string(value), true, nil
		}
		if ref.Optional != nil && *ref.Optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, b.Pod.Namespace, ref.Name)
	case from.FileKeyRef != nil:
		return b.fileKey(from.FileKeyRef)
	}
	return "", true, nil
}

// missing lets an optional reference to a missing object pass.
func missing(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func containerNamed(pod *v1.Pod, name string) *v1.Container {
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}
