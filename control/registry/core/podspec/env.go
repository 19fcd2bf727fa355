package podspec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Fields of a pod that can be read into environment variables and into files, in the order in
// which messages list them.
var (
	envFieldPaths = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	fileFieldPaths = []string{
		"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
	}
	resourcePaths = []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}
)

func (v *validator) env(vars []corev1.EnvVar, path *field.Path) {
	for i := range vars {
		at := path.Index(i)
		if vars[i].Name == "" {
			v.required(at.Child("name"), "")
		} else {
			v.invalidEach(at.Child("name"), vars[i].Name, validation.IsRelaxedEnvVarName(vars[i].Name))
		}
		if vars[i].ValueFrom != nil {
			v.envSource(&vars[i], at.Child("valueFrom"))
		}
	}
}

func (v *validator) envSource(variable *corev1.EnvVar, path *field.Path) {
	source, sources := variable.ValueFrom, 0
	if ref := source.FieldRef; ref != nil {
		sources++
		v.fieldRef(ref, envFieldPaths, path.Child("fieldRef"))
	}
	if ref := source.ResourceFieldRef; ref != nil {
		sources++
		v.resourceFieldRef(ref, path.Child("resourceFieldRef"))
	}
	if ref := source.ConfigMapKeyRef; ref != nil {
		sources++
		v.keyRef(ref.Name, ref.Key, path.Child("configMapKeyRef"))
	}
	if ref := source.SecretKeyRef; ref != nil {
		sources++
		v.keyRef(ref.Name, ref.Key, path.Child("secretKeyRef"))
	}
	if ref := source.FileKeyRef; ref != nil {
		sources++
		v.fileKeyRef(ref, path.Child("fileKeyRef"))
	}
	switch {
	case sources == 0:
		v.invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case variable.Value != "":
		v.invalid(path, "", "may not be specified when `value` is not empty")
	case sources > 1:
		v.invalid(path, "", "may not have more than one field specified at a time")
	}
}

func (v *validator) envFrom(sources []corev1.EnvFromSource, path *field.Path) {
	for i, source := range sources {
		at := path.Index(i)
		if source.Prefix != "" {
			v.invalidEach(at.Child("prefix"), source.Prefix, validation.IsRelaxedEnvVarName(source.Prefix))
		}
		if source.ConfigMapRef != nil {
			v.envFromName(source.ConfigMapRef.Name, at.Child("configMapRef", "name"))
		}
		if source.SecretRef != nil {
			v.envFromName(source.SecretRef.Name, at.Child("secretRef", "name"))
		}
		switch {
		case source.ConfigMapRef == nil && source.SecretRef == nil:
			v.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
		case source.ConfigMapRef != nil && source.SecretRef != nil:
			v.invalid(path, "", "may not have more than one field specified at a time")
		}
	}
}

func (v *validator) envFromName(name string, path *field.Path) {
	if name == "" {
		v.required(path, "")
		return
	}
	v.invalidEach(path, name, apivalidation.NameIsDNSSubdomain(name, true))
}

// keyRef checks a reference to one key of a ConfigMap or Secret.
func (v *validator) keyRef(name, key string, path *field.Path) {
	v.invalidEach(path.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if key == "" {
		v.required(path.Child("key"), "")
		return
	}
	v.invalidEach(path.Child("key"), key, validation.IsConfigMapKey(key))
}

// fileKeyRef checks a reference to a key in a file which an init container wrote.
func (v *validator) fileKeyRef(ref *corev1.FileKeySelector, path *field.Path) {
	if ref.Key == "" {
		v.required(path.Child("key"), "")
	} else {
		v.invalidEach(path.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))
	}
	if ref.VolumeName == "" {
		v.required(path.Child("volumeName"), "")
	} else {
		v.dnsLabel(ref.VolumeName, path.Child("volumeName"))
	}
	if ref.Path == "" {
		v.required(path.Child("path"), "")
	} else {
		v.noBacksteps(ref.Path, path.Child("path"))
	}
}

// fileKeyVolumes: only an emptyDir is sure to be readable by the node where the file must be.
func (v *validator) fileKeyVolumes(path *field.Path) {
	volumes := map[string]*corev1.VolumeSource{}
	for i := range v.spec.Volumes {
		volumes[v.spec.Volumes[i].Name] = &v.spec.Volumes[i].VolumeSource
	}
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		for i, variable := range c.Env {
			if variable.ValueFrom == nil || variable.ValueFrom.FileKeyRef == nil {
				continue
			}
			name := variable.ValueFrom.FileKeyRef.VolumeName
			at := at.Child("env").Index(i).Child("valueFrom", "fileKeyRef", "volumeName")
			if source, found := volumes[name]; !found {
				v.notFound(at, name)
			} else if source.EmptyDir == nil {
				v.invalid(at, name, "referenced volume must be of type emptyDir")
			}
		}
	})
}

// fieldRef checks a reference to a field of the pod itself.
func (v *validator) fieldRef(ref *corev1.ObjectFieldSelector, allowed []string, path *field.Path) {
	if ref.APIVersion == "" {
		v.required(path.Child("apiVersion"), "")
		return
	}
	if ref.FieldPath == "" {
		v.required(path.Child("fieldPath"), "")
		return
	}
	name, subscript, subscripted := splitSubscript(ref.FieldPath)
	problem := ""
	switch {
	case ref.APIVersion != "v1":
		problem = "unsupported pod version: " + ref.APIVersion
	case subscripted && name != "metadata.annotations" && name != "metadata.labels":
		problem = "field label does not support subscript: " + ref.FieldPath
	case !subscripted && !isPodField(name):
		problem = "field label not supported: " + ref.FieldPath
	}
	if problem != "" {
		v.invalid(path.Child("fieldPath"), ref.FieldPath, "error converting fieldPath: "+problem)
		return
	}
	switch {
	case subscripted && name == "metadata.annotations":
		v.qualifiedName(strings.ToLower(subscript), path)
	case subscripted:
		v.qualifiedName(subscript, path)
	default:
		if name == "spec.host" { // the name of spec.nodeName in the first API versions
			name = "spec.nodeName"
		}
		oneOf(&v.findings, path.Child("fieldPath"), name, allowed...)
	}
}

func isPodField(name string) bool {
	switch name {
	case "spec.host", "spec.restartPolicy", "spec.schedulerName", "status.phase":
		return true
	}
	return slices.Contains(envFieldPaths, name) || slices.Contains(fileFieldPaths, name)
}

// splitSubscript splits metadata.labels['key'] into field and key.
func splitSubscript(path string) (name, subscript string, ok bool) {
	body, ok := strings.CutSuffix(path, "']")
	if !ok {
		return path, "", false
	}
	name, subscript, ok = strings.Cut(body, "['")
	if !ok || name == "" {
		return path, "", false
	}
	return name, subscript, true
}

// resourceFieldRef checks a reference to a container's own resources.
func (v *validator) resourceFieldRef(ref *corev1.ResourceFieldSelector, path *field.Path) {
	hugePages := isHugePagesPath(ref.Resource)
	if ref.Resource == "" {
		v.required(path.Child("resource"), "")
	} else if !hugePages {
		oneOf(&v.findings, path.Child("resource"), ref.Resource, resourcePaths...)
	}
	v.divisor(ref, hugePages, path.Child("divisor"))
}

func isHugePagesPath(resource string) bool {
	return strings.HasPrefix(resource, "limits.hugepages-") || strings.HasPrefix(resource, "requests.hugepages-")
}

var byteDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}

func (v *validator) divisor(ref *corev1.ResourceFieldSelector, hugePages bool, path *field.Path) {
	if ref.Divisor.IsZero() {
		return
	}
	allowed, what := byteDivisors, ""
	switch {
	case ref.Resource == "limits.cpu" || ref.Resource == "requests.cpu":
		if !slices.Contains([]string{"1m", "1"}, ref.Divisor.String()) {
			v.invalid(path, ref.Resource, "only divisor's values 1m and 1 are supported with the cpu resource")
		}
		return
	case ref.Resource == "limits.memory" || ref.Resource == "requests.memory":
		what = "memory"
	case ref.Resource == "limits.ephemeral-storage" || ref.Resource == "requests.ephemeral-storage":
		what = "local ephemeral storage"
	case hugePages:
		what = "hugepages"
	default:
		return
	}
	if !slices.Contains(allowed, ref.Divisor.String()) {
		v.invalid(path, ref.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource",
			strings.Join(allowed, ", "), what))
	}
}
