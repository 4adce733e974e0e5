broker "mqtt" "house" {
  url = "mqtt://127.0.0.1:1883"
}

graph "main" {
  text = <<-EOT
    a(x) OUT -> IN rr(msgflo/RoundRobin)
    rr OUT -> IN b(x)
    a OUT -> IN b
  EOT
}

participant "a" {
  component = "x"
  outport "out" {
    address = "one"
  }
}

participant "b" {
  component = "x"
  inport "in" {
    address = "two"
  }
}

edge "a.out" "rr.in" {
  routing = "broker"
}

edge "a.out" "b.in" {
  routing = "broker"
}
