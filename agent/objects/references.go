package objects

import v1 "k8s.io/api/core/v1"

// references lists the config maps and secrets a pod refers to.
func references(pod *v1.Pod) map[key]bool {
	found := map[key]bool{}
	add := func(k kind, name string) {
		if name != "" {
			found[key{k, pod.Namespace, name}] = true
		}
	}
	for i := range pod.Spec.ImagePullSecrets {
		add(secrets, pod.Spec.ImagePullSecrets[i].Name)
	}
	environment := func(from []v1.EnvFromSource, env []v1.EnvVar) {
		for i := range from {
			if r := from[i].ConfigMapRef; r != nil {
				add(configMaps, r.Name)
			}
			if r := from[i].SecretRef; r != nil {
				add(secrets, r.Name)
			}
		}
		for i := range env {
			if env[i].ValueFrom == nil {
				continue
			}
			if r := env[i].ValueFrom.ConfigMapKeyRef; r != nil {
				add(configMaps, r.Name)
			}
			if r := env[i].ValueFrom.SecretKeyRef; r != nil {
				add(secrets, r.Name)
			}
		}
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			environment(containers[i].EnvFrom, containers[i].Env)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		environment(pod.Spec.EphemeralContainers[i].EnvFrom, pod.Spec.EphemeralContainers[i].Env)
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			add(configMaps, v.ConfigMap.Name)
		case v.Secret != nil:
			add(secrets, v.Secret.SecretName)
		case v.Projected != nil:
			for j := range v.Projected.Sources {
				if r := v.Projected.Sources[j].ConfigMap; r != nil {
					add(configMaps, r.Name)
				}
				if r := v.Projected.Sources[j].Secret; r != nil {
					add(secrets, r.Name)
				}
			}
		}
	}
	return found
}
