-- (Re)creates public.transactions with :rows rows, and the burst procedures of the benchmark.
drop table if exists public.transactions;
create table public.transactions (
  id         bigint primary key,
  account_id int,
  amount     numeric(12,2),
  currency   char(3),
  merchant   text,
  country    char(2),
  is_online  boolean,
  created_at timestamptz default now(),
  note       text);

create or replace function bench_amount(i bigint) returns numeric language sql immutable as
$$ select ((i * 7919) % 100000000)::numeric / 100 $$;

create or replace procedure fill(first bigint, last bigint) language sql as $$
  insert into public.transactions
  select i, (i * 31 % 100000)::int, bench_amount(i), (array['EUR','USD','GBP','JPY'])[1 + i % 4],
         'merchant-' || lpad((i % 50000)::text, 11, '0'), (array['DE','US','GB','JP','FR'])[1 + i % 5],
         i % 3 = 0, clock_timestamp(), 'note ' || md5(i::text) || 'abc'
  from generate_series(first, last) i
$$;

-- 1,000-row (n_per) insert transactions, m rows in all, ids after the highest one.
create or replace procedure burst_insert(m bigint, n_per int default 1000) language plpgsql as $$
declare b bigint; k bigint := 0;
begin
  select coalesce(max(id), 0) into b from public.transactions;
  while k < m loop
    call fill(b + k + 1, b + least(k + n_per, m));
    commit;
    k := k + n_per;
  end loop;
end $$;

-- m changes by 100-row transactions: 60 updates, 30 inserts, 10 deletes each.  Updates hit distinct pseudo-random
-- ids of 1..base*0.95, deletes distinct ids of the last 5 % of the base; call it once per load.
create or replace procedure burst_mixed(m bigint, base bigint) language plpgsql as $$
declare t bigint := 0; n bigint := m / 100; b bigint; live bigint := (base * 95) / 100; gone bigint := base - (base * 95) / 100;
begin
  select coalesce(max(id), 0) into b from public.transactions;
  while t < n loop
    update public.transactions x set amount = amount + 1, note = 'upd  ' || md5((t * 60 + s.k)::text) || 'xyz'
      from (select k, ((t * 60 + k) * 7919) % live + 1 as id from generate_series(0, 59) k) s where x.id = s.id;
    call fill(b + t * 30 + 1, b + t * 30 + 30);
    delete from public.transactions x using (select live + 1 + ((t * 10 + k) * 7919) % gone as id from generate_series(0, 9) k) s
      where x.id = s.id;
    commit;
    t := t + 1;
  end loop;
end $$;
