{{- define "tradewind.labels" -}}
app.kubernetes.io/name: tradewind
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tradewind.secret" -}}
{{- .Values.store.existingSecret | default (ternary (printf "%s-store" .Release.Name) "" (ne .Values.store.url "")) -}}
{{- end }}

{{- define "tradewind.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .who.name }}
  labels:
    {{- include "tradewind.labels" .root | nindent 4 }}
  {{- with .who.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .who.name }}
  labels:
    {{- include "tradewind.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .who.name }}
subjects:
- kind: ServiceAccount
  name: {{ .who.name }}
  namespace: {{ .root.Release.Namespace }}
{{- with .who.subjects }}
{{ toYaml . }}
{{- end }}
{{- end }}
