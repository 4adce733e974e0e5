graph "file" {
  file = "graphs/bad.fbp"
}
graph "json" {
  file = "graphs/bad.json"
}
graph "missing" {
  file = "graphs/missing.fbp"
}
graph "outside" {
  file = "../../../go.mod"
}
graph "absolute" {
  file = "/etc/hostname"
}
graph "folder" {
  file = "graphs"
}
graph "extension" {
  file = "participants/siri.yml"
}
graph "both" {
  file = "graphs/good.fbp"
  text = ""
}
graph "neither" {
  txt = ""
}
graph "heredoc" {
  text = <<EOT
button(demo/Button) PRESSED -> START motor(demo/Motor)
a(A) OUT ->
EOT
}
graph "indented" {
  text = <<-EOT
    button(demo/Button) PRESSED -> START motor(demo/Motor)
      a(A) OUT ->
  EOT
}
graph "quoted" {
  text = "a(A) OUT ->"
}
graph "escaped" {
  text = "a(A) OUT -> IN b(B)\na OUT ->"
}
