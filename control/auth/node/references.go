package node

import (
	corev1 "k8s.io/api/core/v1"
)

// secrets shows the names of all Secrets that a pod refers to.
func secrets(spec *corev1.PodSpec, see func(string)) {
	for _, reference := range spec.ImagePullSecrets {
		see(reference.Name)
	}
	containers(spec, func(c *corev1.Container) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				see(from.SecretRef.Name)
			}
		}
		for _, env := range c.Env {
			if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
				see(env.ValueFrom.SecretKeyRef.Name)
			}
		}
	})
	for i := range spec.Volumes {
		volumeSecrets(&spec.Volumes[i].VolumeSource, see)
	}
}

func volumeSecrets(v *corev1.VolumeSource, see func(string)) {
	local := func(reference *corev1.LocalObjectReference) {
		if reference != nil {
			see(reference.Name)
		}
	}
	switch {
	case v.Secret != nil:
		see(v.Secret.SecretName)
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				see(source.Secret.Name)
			}
		}
	case v.AzureFile != nil:
		see(v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	}
}

// configMaps shows the names of all ConfigMaps that a pod refers to.
func configMaps(spec *corev1.PodSpec, see func(string)) {
	containers(spec, func(c *corev1.Container) {
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				see(from.ConfigMapRef.Name)
			}
		}
		for _, env := range c.Env {
			if env.ValueFrom != nil && env.ValueFrom.ConfigMapKeyRef != nil {
				see(env.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	})
	for i := range spec.Volumes {
		switch v := &spec.Volumes[i]; {
		case v.ConfigMap != nil:
			see(v.ConfigMap.Name)
		case v.Projected != nil:
			for _, source := range v.Projected.Sources {
				if source.ConfigMap != nil {
					see(source.ConfigMap.Name)
				}
			}
		}
	}
}

func containers(spec *corev1.PodSpec, see func(*corev1.Container)) {
	for i := range spec.InitContainers {
		see(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		see(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		see(&c)
	}
}
