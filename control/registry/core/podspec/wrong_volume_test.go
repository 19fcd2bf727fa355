package podspec

import "testing"

func TestWrongVolumesAndMountsAreRefused(t *testing.T) {
	t.Parallel()
	checkWrongManifests(t, []wrongManifest{
		{"a mount needs a volume and a place", "spec: {containers: [{name: c, image: nginx, volumeMounts: [{name: nowhere}]}]}", []string{
			`spec.containers[0].volumeMounts[0].name: Not found: "nowhere"`,
			"spec.containers[0].volumeMounts[0].mountPath: Required value",
		}},
		{"mounts have different places", "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: nginx, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /a}]}]}", []string{
			`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique`,
		}},
		{"a sub-path stays in its volume", "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: nginx, volumeMounts: [{name: v, mountPath: /a, subPath: ../b}, {name: v, mountPath: /b, subPath: /c}]}]}", []string{
			`spec.containers[0].volumeMounts.subPath: Invalid value: "../b": must not contain '..'`,
			`spec.containers[0].volumeMounts.subPath: Invalid value: "/c": must be a relative path`,
		}},
		{"mounts propagate to the node from privileged containers only", "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: nginx, volumeMounts: [{name: v, mountPath: /a, mountPropagation: Bidirectional}]}]}", []string{
			"spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
		}},
		{"a mount is read-only before it is so recursively", "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: nginx, volumeMounts: [{name: v, mountPath: /a, recursiveReadOnly: Enabled}]}]}", []string{
			"spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
		}},
		{"a block device comes from a claim", "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: nginx, volumeDevices: [{name: v, devicePath: /dev/x}]}]}", []string{
			`spec.containers[0].volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode`,
		}},
		{"a volume needs a name", "spec: {volumes: [{emptyDir: {}}]}", []string{
			"spec.volumes[0].name: Required value",
		}},
		{"volumes have different names", "spec: {volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]}", []string{
			`spec.volumes[1].name: Duplicate value: "v"`,
		}},
		{"a volume has one kind", "spec: {volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]}", []string{
			"spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
		}},
		{"a path of the node is known by its kind", "spec: {volumes: [{name: v, hostPath: {path: /a/../b, type: Symlink}}]}", []string{
			`spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'`,
			`spec.volumes[0].hostPath.type: Unsupported value: "Symlink": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"`,
		}},
		{"a secret volume names its secret", `spec: {volumes: [{name: v, secret: {defaultMode: 4095, items: [{key: a, path: /abs}, {key: "", path: ..x}]}}]}`, []string{
			"spec.volumes[0].secret.secretName: Required value",
			"spec.volumes[0].secret.defaultMode: Invalid value: 4095: must be a number between 0 and 0777 (octal), both inclusive",
			`spec.volumes[0].secret.items[0].path: Invalid value: "/abs": must be a relative path`,
			"spec.volumes[0].secret.items[1].key: Required value",
			`spec.volumes[0].secret.items[1].path: Invalid value: "..x": must not start with '..'`,
		}},
		{"a ConfigMap volume names its ConfigMap", "spec: {volumes: [{name: v, configMap: {}}]}", []string{
			"spec.volumes[0].configMap.name: Required value",
		}},
		{"a claim volume names its claim", "spec: {volumes: [{name: v, persistentVolumeClaim: {}}]}", []string{
			"spec.volumes[0].persistentVolumeClaim.claimName: Required value",
		}},
		{"a downward volume's file holds a field or a resource", "spec: {volumes: [{name: v, downwardAPI: {items: [{path: a}, {path: b, resourceFieldRef: {resource: limits.cpu}}]}}]}", []string{
			"spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
			"spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value",
		}},
		{"a projected token lives for ten minutes at least", "spec: {serviceAccountName: sa, volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 60}}]}}]}", []string{
			"spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
		}},
		{"projected files do not collide", "spec: {volumes: [{name: v, projected: {sources: [{secret: {name: s, items: [{key: a, path: x}]}}, {configMap: {name: s, items: [{key: a, path: x}]}}]}}]}", []string{
			`spec.volumes[0].projected: Invalid value: "s": conflicting duplicate paths`,
		}},
		{"a projected source has one kind", "spec: {volumes: [{name: v, projected: {sources: [{secret: {name: s}, configMap: {name: s}}]}}]}", []string{
			"spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
		}},
		{"an ephemeral volume's claim says how it is used and how large it is", "spec: {volumes: [{name: v, ephemeral: {volumeClaimTemplate: {metadata: {name: x}, spec: {}}}}]}", []string{
			"spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
			"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
			"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
		}},
		{"an image volume names its image", "spec: {volumes: [{name: v, image: {}}]}", []string{
			"spec.volumes[0].image.reference: Required value",
		}},
		{"an NFS path is absolute", "spec: {volumes: [{name: v, nfs: {server: s, path: rel}}]}", []string{
			`spec.volumes[0].nfs.path: Invalid value: "rel": must be an absolute path`,
		}},
		{"a CSI driver's name is a DNS subdomain", `spec: {volumes: [{name: v, csi: {driver: "not a driver"}}]}`, []string{
			`spec.volumes[0].csi.driver: Invalid value: "not a driver": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
	})
}
